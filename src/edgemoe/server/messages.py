"""Messages of any protocol in the one shape that chat templates take."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from edgemoe.server.failures import refused
from edgemoe.server.fields import mended
from edgemoe.server.parts import content_text, part_text

MAX_MESSAGES = 10_000
# A line that one client writes into a block of its own at the front of its system prompt, different in every
# turn: kept, it would make the whole conversation a new text each time.
BILLING_LINE = re.compile(r"^x-anthropic-billing-header:[^\n]*\n*", re.MULTILINE)


def system_text(value: Any, name: str) -> str:
    """The text of a system message, its blocks one below the other. Errors as of ``content_text``."""
    if isinstance(value, list):
        blocks = [part_text(part, f"{name}[{place}]") for place, part in enumerate(value)]
    else:
        blocks = [content_text(value, name)]
    return "\n".join(text for block in blocks if (text := BILLING_LINE.sub("", block)))


def call_arguments(value: Any, name: str) -> dict[str, Any]:
    """A call's arguments as an object: templates write them in their own way, from objects.

    Text that is no JSON object is kept under one key, so that a damaged history does not end a conversation.
    """
    if value is None or value == "":
        return {}
    if isinstance(value, dict):
        return value
    if not isinstance(value, str):
        raise refused(name, "must be the text of a JSON object")
    try:
        parsed = mended(json.loads(value))
    except (ValueError, RecursionError):
        return {"arguments": value}
    return parsed if isinstance(parsed, dict) else {"arguments": parsed}


def function_call(call_id: str, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A call as chat templates read it."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": dict(arguments)}}


def join_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The system texts that open a conversation as one: most templates take one. Later ones stay in place, so
    that what comes before them is the same text in every turn.
    """
    count = next((n for n, m in enumerate(messages) if m["role"] != "system"), len(messages))
    texts = [m["content"] for m in messages[:count] if m["content"]]
    return (
        [{"role": "system", "content": "\n\n".join(texts)}, *messages[count:]] if texts else messages[count:]
    )
