"""DeepSeek: marks around JSON (V3, V3.1), and tags with a mark of their own (V3.2 on)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from edgemoe.server.dialects.call_readers import ClosedCall
from edgemoe.server.dialects.json_span import dump_arguments, load_json
from edgemoe.server.dialects.qwen import THINK
from edgemoe.server.dialects.reader import Call, CallReader, Manner, Mark, Schemas

SEPARATOR = "<｜tool▁sep｜>"
_FENCED = re.compile(r"(.+?)\n```json\n(.*)\n```", re.DOTALL)
_PARAMETER = re.compile(
    r'\s*<｜DSML｜ ?parameter name="([^"]*)" string="(true|false)">(.*?)</｜DSML｜ ?parameter>'
    r"(?=\s*(?:<｜DSML｜ ?parameter |\Z))",
    re.DOTALL,
)


def _marked(text: str, _: Schemas) -> Sequence[Call] | None:
    name, separator, rest = text.partition(SEPARATOR)
    if not separator:
        return None
    if name.strip() == "function" and (fenced := _FENCED.fullmatch(rest.strip())):
        name, rest = fenced[1], fenced[2]
    arguments = load_json(rest.strip())
    return [Call(name.strip(), dump_arguments(arguments))] if isinstance(arguments, dict) else None


def _tagged(text: str, _: Schemas) -> Sequence[Call] | None:
    name, quote, rest = text.partition('"')
    if not quote or (rest and not rest.startswith(">")):
        return None
    rest = rest[1:]
    arguments: dict[str, Any] = {}
    while found := _PARAMETER.match(rest):
        value = load_json(found[3]) if found[2] == "false" else found[3]
        arguments[found[1]] = found[3] if value is ... else value
        rest = rest[found.end() :]
    return None if rest.strip() else [Call(name, dump_arguments(arguments))]


def _open_marked(schemas: Schemas) -> CallReader:
    return ClosedCall(schemas, ["<｜tool▁call▁end｜>"], _marked)


def _open_tagged(schemas: Schemas) -> CallReader:
    return ClosedCall(schemas, ["</｜DSML｜invoke>", "</｜DSML｜ invoke>", "/>"], _tagged)


_NAMES = ("function_calls", "tool_calls", " calls", " tool_calls", " function_calls")
_OPENS = ["<｜tool▁calls▁begin｜>", *(f"<｜DSML｜{name}>" for name in _NAMES)]
_CLOSES = ["<｜tool▁calls▁end｜>", *(f"</｜DSML｜{name}>" for name in _NAMES)]
DEEPSEEK = Manner(
    (
        THINK,
        Mark("<｜tool▁call▁begin｜>", _open_marked),
        Mark('<｜DSML｜invoke name="', _open_tagged),
        Mark('<｜DSML｜ invoke name="', _open_tagged),
    ),
    ("</think>",),
    silent=(*_OPENS, *_CLOSES),
    call_sections=_OPENS,
)
