"""Qwen: JSON between marks (Qwen3, and most who follow Hermes), and tags (Qwen3-Coder, Qwen3.5 on)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from edgemoe.server.dialects.call_readers import ClosedCall, JsonCall, named_call
from edgemoe.server.dialects.coercion import coerce, property_schema
from edgemoe.server.dialects.json_span import dump_arguments, load_json
from edgemoe.server.dialects.reader import Call, CallReader, Manner, Mark, Schemas

THINK = Mark("<think>", None)

_FUNCTION = re.compile(r"\s*<function=([^>\n]+)>(.*)", re.DOTALL)
_PARAMETER = re.compile(r"\s*<parameter=([^>\n]+)>")
# Where a parameter's text ends: its closing tag, if something that can follow follows, or, where the model
# forgot it, a line that opens the next one.
_VALUE_END = re.compile(r"</parameter>(?=\s*(?:<parameter=|\Z))|\n(?=<parameter=[^>\n]+>)")


def _hermes_call(head: str, value: Any) -> Sequence[Call] | None:
    call = named_call(value)
    return [call] if call is not None and not head else None


def _open_hermes(_: Schemas) -> CallReader:
    return JsonCall(_hermes_call, "</tool_call>")


def _tagged(text: str, schemas: Schemas) -> Sequence[Call] | None:
    """The call between ``<tool_call>`` marks."""
    body = text.strip()
    if body.startswith("{"):  # as Hermes writes it, which a call that must be made has
        return _hermes_call("", load_json(body))
    if not body.endswith("</function>"):
        return None
    found = _FUNCTION.fullmatch(body[: -len("</function>")])
    return None if found is None else _function(found[1], found[2], schemas)


def _bare(text: str, schemas: Schemas) -> Sequence[Call] | None:
    """The call after ``<function=``, without the mark around it."""
    name, closes, rest = text.partition(">")
    return _function(name, rest, schemas) if closes and "\n" not in name else None


def _function(name: str, text: str, schemas: Schemas) -> Sequence[Call] | None:
    arguments: dict[str, Any] = {}
    while found := _PARAMETER.match(text):
        text = text[found.end() :]
        ends = _VALUE_END.search(text)
        value, text = (text, "") if ends is None else (text[: ends.start()], text[ends.end() :])
        value = (
            value.removeprefix("\n").removesuffix("\n")
            if ends is None or ends[0] != "\n"
            else value.removeprefix("\n")
        )
        key = found[1].strip()
        arguments[key] = coerce(value, property_schema(schemas.get(name, {}), key))
    return None if text.strip() else [Call(name.strip(), dump_arguments(arguments))]


def _open_tagged(schemas: Schemas) -> CallReader:
    return ClosedCall(schemas, ["</tool_call>"], _tagged)


def _open_bare(schemas: Schemas) -> CallReader:
    return ClosedCall(schemas, ["</function>"], _bare, trail="</tool_call>")


def hermes_text(calls: Sequence[Mapping[str, Any]]) -> str:
    """Calls (name, arguments) as a model writes them, for templates that know none."""
    shown = [{"name": call["name"], "arguments": call["arguments"]} for call in calls]
    return "\n".join(f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>" for call in shown)


HERMES = Manner((THINK, Mark("<tool_call>", _open_hermes)), ("</think>",))
QWEN_XML = Manner(
    (THINK, Mark("<tool_call>", _open_tagged), Mark("<function=", _open_bare)),
    ("</think>",),
    call_ends_thought=True,
)
