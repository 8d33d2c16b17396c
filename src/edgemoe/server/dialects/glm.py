"""GLM 4.5 and later: ``<tool_call>name<arg_key>k</arg_key><arg_value>v</arg_value></tool_call>``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgemoe.server.dialects.call_readers import ClosedCall, named_call
from edgemoe.server.dialects.coercion import coerce, property_schema
from edgemoe.server.dialects.json_span import dump_arguments, load_json
from edgemoe.server.dialects.qwen import THINK
from edgemoe.server.dialects.reader import Call, CallReader, Manner, Mark, Schemas

_PAIR = re.compile(
    r"\s*<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)(?:</arg_value>\s*(?=<arg_key>|\Z))", re.DOTALL
)


def _parse(text: str, schemas: Schemas) -> Sequence[Call] | None:
    if text.lstrip().startswith("{"):  # as Hermes writes it, which a call that must be made has
        call = named_call(load_json(text))
        return None if call is None else [call]
    name, first, rest = text.partition("<arg_key>")
    name, rest = name.strip(), first + rest
    if not name or re.search(r"[\s<>]", name):
        return None
    arguments = {}
    while found := _PAIR.match(rest):
        key = found[1].strip()
        arguments[key] = coerce(found[2], property_schema(schemas.get(name, {}), key))
        rest = rest[found.end() :]
    return None if rest.strip() else [Call(name, dump_arguments(arguments))]


def _open(schemas: Schemas) -> CallReader:
    return ClosedCall(schemas, ["</tool_call>"], _parse)


GLM = Manner((THINK, Mark("<tool_call>", _open)), ("</think>",))
