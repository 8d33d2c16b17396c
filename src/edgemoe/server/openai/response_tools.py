"""Tools of ``/v1/responses``: what a model is told of them, and what a client knows them by.

Models know functions. So a tool whose input is any text (``custom``) is a function with one argument, and the
client's own search for tools (``tool_search``) is one too; their calls go back as items of their kinds.
Tools in a namespace have its name before theirs. Tools that another server would run are left out.

Tools may also come within a conversation: as an item ``additional_tools``, or as what a search found. Their
definitions are written where they came, so that all before them is the same text as in the turn before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgemoe.server.fields import Fields
from edgemoe.server.grammar import INPUT, input_error
from edgemoe.server.lark import of_regex
from edgemoe.server.options import Limits
from edgemoe.server.tools import check_schema_size, definitions_text, function_tool

FUNCTION, CUSTOM, SEARCH, NAMESPACE = "function", "custom", "tool_search", "namespace"
ADDITIONAL = "additional_tools"  # an item: tools that come within the conversation


@dataclass(frozen=True)
class ClientTool:
    """A tool that the client runs; ``shown`` is what the model is told, in the shape of chat templates.

    ``is_loose``: its parameters need not be kept to. ``input_grammar``: Lark of the text that is its input.
    """

    kind: str
    name: str
    namespace: str | None
    shown: Mapping[str, Any]
    is_loose: bool = False
    input_grammar: str | None = None


class ResponseTools:
    """The tools of one request, by the names that the model knows them by."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.by_name: dict[str, ClientTool] = {}
        self._told_first: set[str] = set()

    def tell_first(self, fields: Fields) -> None:
        """Take the ``tools`` of a body, or of an item before all others."""
        self._told_first.update(tool.shown["function"]["name"] for tool in self._take(fields))

    def write_out(self, fields: Fields) -> str:
        """Take the ``tools`` of an item within the conversation; what stands for them there."""
        return definitions_text([tool.shown["function"] for tool in self._take(fields)])

    def shown(self) -> list[Mapping[str, Any]]:
        """All that may be called, in the shape of chat templates."""
        return [tool.shown for tool in self.by_name.values()]

    def written(self) -> frozenset[str]:
        """Names of those whose definitions stand in the conversation only."""
        return frozenset(self.by_name.keys() - self._told_first)

    def loose(self) -> frozenset[str]:
        """Names of functions whose parameters need not be kept to."""
        return frozenset(name for name, tool in self.by_name.items() if tool.is_loose)

    def input_grammars(self) -> Mapping[str, str]:
        """Grammars of inputs, by the names of their tools."""
        return {name: tool.input_grammar for name, tool in self.by_name.items() if tool.input_grammar}

    def _take(self, fields: Fields) -> list[ClientTool]:
        found = list(_read_tools(fields, self._limits))
        self.by_name.update((tool.shown["function"]["name"], tool) for tool in found)
        most = self._limits.num_tools
        if len(self.by_name) > most:
            raise fields.fail("tools", f"are {len(self.by_name)}; at most {most} are taken")
        return found


def _read_tools(fields: Fields, limits: Limits, namespace: str | None = None) -> Iterator[ClientTool]:
    for place, entry in enumerate(fields.items("tools", limits.num_tools)):
        tool = Fields(entry, f"{fields.name('tools')}[{place}]")
        kind = tool.needed_text("type")
        if kind == NAMESPACE and namespace is None:
            yield from _read_tools(tool, limits, tool.needed_text("name"))
        elif kind == FUNCTION:
            shown = function_tool(tool, "parameters", limits)
            yield _named(kind, shown, namespace, is_loose=tool.get("strict") is False)
        elif kind == CUSTOM:
            form = _read_form(tool, limits)
            yield _named(kind, _custom_tool(tool, form, limits), namespace, input_grammar=form.grammar)
        elif kind == SEARCH and tool.text("execution") == "client":
            search = Fields({**tool.body, "name": SEARCH}, tool.path)
            yield _named(kind, function_tool(search, "parameters", limits), None)


def _named(kind: str, shown: Mapping[str, Any], namespace: str | None, **what: Any) -> ClientTool:
    function = shown["function"]
    name = function["name"]
    shown = {**shown, "function": {**function, "name": full_name(namespace, name)}}
    return ClientTool(kind, name, namespace, shown, **what)


def full_name(namespace: str | None, name: str) -> str:
    """What the model knows a tool of a namespace by."""
    return name if namespace is None else f"{namespace}__{name}"


@dataclass(frozen=True)
class _InputForm:
    """What is asked of a custom tool's input: a grammar in Lark, and what the model is told of it."""

    grammar: str | None = None
    told: str = ""
    pattern: str | None = None


def _read_form(tool: Fields, limits: Limits) -> _InputForm:
    """The form of a custom tool's input.

    Raises:
        Failure: no answer could be held to it.
    """
    form = tool.inner("format")
    if form is None or form.choice("type", ("text", "grammar"), "text") == "text":
        return _InputForm()
    definition = form.needed_text("definition")
    check_schema_size({"definition": definition}, form.name("definition"), limits)
    if form.choice("syntax", ("lark", "regex"), "lark") == "regex":
        found = _InputForm(of_regex(definition), pattern=f"^(?:{definition})$")
    else:
        found = _InputForm(definition, f"\n\nThe input follows this grammar (Lark):\n{definition}")
    wrong = input_error(found.grammar or "")
    if wrong:
        raise form.fail("definition", f"cannot be kept to: {wrong[:300]}")
    return found


def _custom_tool(tool: Fields, form: _InputForm, limits: Limits) -> dict[str, Any]:
    """A function for a tool whose input is any text, or text of a form."""
    argument: dict[str, Any] = {"type": "string", "description": "The whole input, as it is."}
    if form.pattern is not None:
        argument["pattern"] = form.pattern
    description = (tool.text("description", "") or "") + form.told
    schema = {"type": "object", "properties": {INPUT: argument}, "required": [INPUT]}
    described = {"name": tool.get("name"), "description": description, "parameters": schema}
    return function_tool(Fields(described, tool.path), "parameters", limits)


def custom_input(arguments: str) -> str:
    """The input of a call of a custom tool. A model that made up arguments of its own said it with them."""
    try:
        values = json.loads(arguments)
    except ValueError:
        return arguments
    texts = [values[INPUT]] if INPUT in values else list(values.values())
    return texts[0] if len(texts) == 1 and isinstance(texts[0], str) else arguments


def is_own_search(item: Mapping[str, Any]) -> bool:
    """Whether an item is of a search for tools that the client ran."""
    return (
        item.get("type") in {"tool_search_call", "tool_search_output"} and item.get("execution") == "client"
    )
