"""Functions for models whose chat template knows none: they are explained in words, and calls become text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

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


def in_words(messages: Messages, tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The conversation without functions: they, their calls and results are text."""
    shown = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    system = _EXPLANATION.format(tools=shown)
    rest = [_plain(message) for message in messages]
    if rest and rest[0]["role"] == "system":
        system = f"{rest[0]['content']}\n\n{system}"
        rest = rest[1:]
    return [{"role": "system", "content": system}, *rest]


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    if message["role"] == "tool":
        text = f"<tool_response>\n{message['content']}\n</tool_response>"
        return {"role": "user", "content": text}
    calls = [
        f"<tool_call>\n{json.dumps(_named(call['function']), ensure_ascii=False)}\n</tool_call>"
        for call in message.get("tool_calls") or ()
    ]
    parts = [text for text in (str(message.get("content") or ""), *calls) if text]
    return {key: value for key, value in message.items() if key != "tool_calls"} | {
        "content": "\n".join(parts)
    }


def _named(function: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": function["name"], "arguments": function["arguments"]}
