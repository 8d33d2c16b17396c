"""Functions that a model may call, and which of them it must, from a request's fields."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from edgemoe.server.failures import refused, unsupported
from edgemoe.server.fields import Fields
from edgemoe.server.options import Limits
from edgemoe.server.request import AUTO, NAMED, NONE, REQUIRED, ToolChoice

Tools = Sequence[Mapping[str, Any]]  # in the shape of chat templates
MAX_ALLOWED = 1024
_UNWRITABLE = re.compile(r'["\\\x00-\x1f]')  # families write names as they are, between marks of theirs
_WORDS = {AUTO: AUTO, NONE: NONE, REQUIRED: REQUIRED, "any": REQUIRED}  # and Mistral's word for it
CALLED = {"function", "custom"}  # kinds of tools that a request can name


def read_tools(fields: Fields, limits: Limits) -> Tools:
    """The functions a model may call, in the shape of chat templates."""
    tools = []
    for place, entry in enumerate(fields.items("tools", limits.num_tools)):
        tool = Fields(entry, f"{fields.name('tools')}[{place}]")
        kind = tool.needed_text("type")
        if kind != "function":
            raise unsupported(f"{tool.name('type')} {kind!r}", "this server knows functions only")
        function = tool.inner("function")
        if function is None:
            raise tool.fail("function", "is missing")
        tools.append(function_tool(function, "parameters", limits))
    return tools


def function_tool(function: Fields, parameters: str, limits: Limits) -> dict[str, Any]:
    """One function, its parameters checked for size."""
    name = function.needed_text("name")
    if not name or len(name) > 256:
        raise function.fail("name", "must have 1 to 256 characters")
    if _UNWRITABLE.search(name):
        raise function.fail("name", "has a quotation mark, a backslash or a control character")
    schema = function.mapping(parameters)
    kinds = schema.get("type")
    if kinds is not None and "object" not in (kinds if isinstance(kinds, list) else [kinds]):
        raise function.fail(f"{parameters}.type", "must be object: arguments have names")
    check_schema_size(schema, function.name(parameters), limits)
    described = {"name": name, "description": function.text("description", "") or ""}
    return {
        "type": "function",
        "function": described | {"parameters": schema or {"type": "object", "properties": {}}},
    }


def loose_names(entries: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Names of the functions of a request that has been read whose parameters need not be kept to."""
    functions = [entry["function"] if entry.get("type") == "function" else entry for entry in entries]
    return frozenset(str(function.get("name")) for function in functions if function.get("strict") is False)


def definitions_text(functions: Sequence[Mapping[str, Any]]) -> str:
    """Definitions of functions where they stand within a conversation."""
    lines = [f"<function>{json.dumps(function, ensure_ascii=False)}</function>" for function in functions]
    return "\n".join(["<functions>", *lines, "</functions>"])


def check_schema_size(schema: Mapping[str, Any], name: str, limits: Limits) -> None:
    """Refuse a schema that would take long to compile."""
    size = len(json.dumps(schema))
    if size > limits.schema_bytes:
        raise refused(name, f"is {size} bytes of schema; at most {limits.schema_bytes} are taken")


def chosen_tools(tools: Tools, value: Any) -> tuple[Tools, ToolChoice]:
    """``tool_choice`` as chat and responses have it, and the tools that it leaves."""
    if isinstance(value, dict) and value.get("type") == "allowed_tools":
        return _allowed_tools(tools, Fields(value, "tool_choice"))
    return tools, _read_choice(value, tools)


def _read_choice(value: Any, tools: Tools) -> ToolChoice:
    if isinstance(value, dict) and str(value.get("type")) in _WORDS:  # as Cursor sends it
        value = value["type"]
    if value is None:
        return ToolChoice()
    if isinstance(value, str):
        if value not in _WORDS:
            raise refused("tool_choice", f"is {value!r}; it must be auto, none, required or a function")
        kind = _WORDS[value]
        if kind == REQUIRED and not tools:
            raise refused("tool_choice", "is required, but there are no tools")
        return ToolChoice(kind)
    choice = Fields(value, "tool_choice")
    if choice.text("type") not in CALLED:
        raise unsupported("tool_choice.type", "it must be function, custom or allowed_tools")
    return named_choice(_function_name(choice), tools)


def _function_name(entry: Fields) -> str:
    """A function's name as chat has it, or as responses have it."""
    return (entry.inner("function") or entry).needed_text("name")


def _allowed_tools(tools: Tools, choice: Fields) -> tuple[Tools, ToolChoice]:
    """Some of the tools: the model is told of no others."""
    inner = choice.inner("allowed_tools") or choice
    mode = inner.choice("mode", (AUTO, REQUIRED), AUTO)
    entries = [
        Fields(entry, f"{inner.name('tools')}[{place}]")
        for place, entry in enumerate(inner.items("tools", MAX_ALLOWED))
    ]
    names = {named_choice(_function_name(entry), tools).name
             for entry in entries if entry.text("type") in CALLED}  # fmt: skip
    left = [tool for tool in tools if tool["function"]["name"] in names]
    return left, _read_choice(mode, left)


def named_choice(name: str, tools: Sequence[Mapping[str, Any]]) -> ToolChoice:
    """The choice of one function, which must be there."""
    if name not in {tool["function"]["name"] for tool in tools}:
        raise refused("tool_choice", f"names {name!r}, which is not among the tools")
    return ToolChoice(NAMED, name)
