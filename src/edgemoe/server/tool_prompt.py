"""Functions for models whose chat template knows none: they are explained in words, and calls become text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from edgemoe.server.dialects import Dialect

Messages = Sequence[Mapping[str, Any]]

_EXPLANATION = """You can call functions. These are their names, purposes and parameters:
<tools>
{tools}
</tools>
To call one, write its name and arguments as JSON between these marks:
<tool_call>
{{"name": "function", "arguments": {{"parameter": "value"}}}}
</tool_call>"""


def knows_tools(template: str) -> bool:
    """Whether a chat template does something with functions."""
    return "tools" in template


def knows_calls(template: str) -> bool:
    """Whether a chat template writes calls that were made. LFM2's first one does not, though it knows
    functions.
    """
    return "tool_calls" in template


def in_words(
    messages: Messages, tools: Sequence[Mapping[str, Any]], dialect: Dialect
) -> list[dict[str, Any]]:
    """The conversation without functions: they, their calls and results are text."""
    rest = [_without_results(message) for message in with_calls_as_text(messages, dialect)]
    if not tools:
        return rest
    shown = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    system = _EXPLANATION.format(tools=shown)
    if rest and rest[0]["role"] == "system":
        system = f"{rest[0]['content']}\n\n{system}"
        rest = rest[1:]
    return [{"role": "system", "content": system}, *rest]


def with_calls_as_text(messages: Messages, dialect: Dialect) -> list[dict[str, Any]]:
    """The conversation with calls as the family writes them, for a template that would leave them out."""
    out = []
    for message in messages:
        calls = [call["function"] for call in message.get("tool_calls") or ()]
        if not calls:
            out.append({**message})
            continue
        text = "\n".join(part for part in (message.get("content"), dialect.as_text(calls)) if part)
        out.append({key: value for key, value in message.items() if key != "tool_calls"} | {"content": text})
    return out


def _without_results(message: Mapping[str, Any]) -> dict[str, Any]:
    if message["role"] != "tool":
        return {**message}
    return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
