"""Grammars for llguidance: JSON of a schema, and calls of functions as a family writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from llguidance import LLMatcher

from edgemoe.server.dialects import Form, JsonForm, ListForm, Opening, PythonForm, QuotedForm, TaggedForm
from edgemoe.server.lark import foreign_part, literals, spaced
from edgemoe.server.python_grammar import PythonRules
from edgemoe.server.quoted_grammar import QuotedRules
from edgemoe.server.tagged_grammar import TaggedRules

# Whitespace of a fixed kind: a free choice is an invitation to write nothing but spaces.
_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
# Within calls, families differ in whether a space stands behind commas and colons, and in which characters
# they escape. Keywords that cannot be kept to are only advice there.
_CALL_LAYOUT = {
    "whitespace_flexible": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
    "json_allow_general_unicode_escapes": True,
    "lenient": True,
}
_GAP = "/[ \\n]{0,2}/"  # what may stand behind the mark that opens a call
INPUT = "input"  # the one argument of a tool whose input is any text


@dataclass(frozen=True)
class Function:
    """A function that may be called: its parameters' schema, or a grammar of the text it takes."""

    name: str
    schema: Mapping[str, Any]
    input_grammar: str | None = None


@dataclass(frozen=True)
class Input:
    """A text that has a grammar of its own: what stands before it, tight, and the grammar of what follows it.

    ``is_escaped``: it stands within a JSON string.
    """

    before: str
    grammar: str
    closing: str
    is_escaped: bool


@dataclass(frozen=True)
class CallGrammar:
    """A grammar of one call. One that ends in what stands before an input goes on with that."""

    grammar: str
    inputs: Sequence[Input] = ()


def json_grammar(schema: Mapping[str, Any]) -> str:
    """A grammar of the JSON values of a schema."""
    return json.dumps({"grammars": [{"json_schema": {**schema, "x-guidance": _LAYOUT}}]})


def arguments_grammar(schema: Mapping[str, Any]) -> str:
    """A grammar of the arguments of a call as JSON, as they are kept to there."""
    return json.dumps({"grammars": [{"json_schema": {**schema, "x-guidance": _CALL_LAYOUT}}]})


@lru_cache(64)
def input_error(grammar: str) -> str:
    """What is wrong with the grammar of an input, in Lark; "" if nothing is."""
    return foreign_part(grammar) or LLMatcher.validate_grammar(_lark_grammar(grammar))


def call_grammar(
    functions: Sequence[Function], begins: str, forms: Sequence[Form], special_ids: Mapping[str, int]
) -> CallGrammar | None:
    """A grammar of a call of one of the functions in one of the forms; None if there can be none.

    ``begins`` is what the call begins with; "" if the mark that opens it is already there.
    ``special_ids`` are tokens that stand for their text as a whole.
    """
    rules = _CallRules(special_ids)
    if not rules.add_all(functions, begins, forms, "call"):
        return None
    return CallGrammar(rules.grammar(rules.starts), rules.inputs)


def json_or_call_grammar(
    schema: Mapping[str, Any],
    functions: Sequence[Function],
    openings: Sequence[Opening],
    sections: Sequence[str],
    special_ids: Mapping[str, int],
    *,
    has_gap: bool,
) -> CallGrammar:
    """A grammar of the JSON values of a schema, and of calls: one behind a mark that opens it, and maybe a
    mark before that which opens a list of them. Calls that cannot be held are none. ``has_gap``: some space
    may stand before either, so that it says nothing of which comes.
    """
    rules = _CallRules(special_ids)
    for number, opening in enumerate(openings):
        rules.add_all(functions, opening.mark, opening.forms, f"call_{number}")
    section = " | ".join(literals(text, special_ids) for text in sections)
    calls = f"(({section}) gap)? ({rules.starts})" if section else rules.starts
    lines = [
        f"either: answer | {calls}" if rules.starts else "either: answer",
        "answer: %json " + json.dumps({**schema, "x-guidance": _LAYOUT}),
        f"gap: {_GAP}",
    ]
    return CallGrammar(rules.grammar("gap either" if has_gap else "either", lines), rules.inputs)


class _CallRules:
    """Gathers the rules of calls."""

    def __init__(self, special_ids: Mapping[str, int]) -> None:
        self._special_ids = special_ids
        self._starts: list[str] = []
        self._lines: list[str] = []
        self._of_arguments: dict[str, str] = {}  # rules by the function's name
        self._quoted_rules: QuotedRules | None = None
        self._python_rules: PythonRules | None = None
        self.inputs: list[Input] = []

    @property
    def starts(self) -> str:
        """The calls, one or another; "" if there are none."""
        return " | ".join(self._starts)

    def add_all(self, functions: Sequence[Function], begins: str, forms: Sequence[Form], name: str) -> bool:
        """Add calls that begin so, in any of the forms. False if one is impossible: then none is added."""
        count = len(self._starts)
        for place, form in enumerate(forms):
            alone, single = form, functions
            if isinstance(form, ListForm):  # an input with a grammar of its own stands in a list of one
                self._add_list(
                    [f for f in functions if f.input_grammar is None], form, f"{name}_{place}", begins
                )
                alone, single = form.alone, [f for f in functions if f.input_grammar is not None]
            for number, function in enumerate(single):
                if not self._add(function, alone, f"{name}_{number}_{place}", begins):
                    del self._starts[count:]
                    return False
        return True

    def _add_list(self, functions: Sequence[Function], form: ListForm, name: str, begins: str) -> None:
        """Add calls in one list."""
        items = [f"{name}_item_{number}" for number in range(len(functions))]
        for item, function in zip(items, functions, strict=True):
            body = self._body(function, form.item, item)
            self._lines.append(f"{item}: {self._spaced(form.item.before, function.name)} {body}")
        if items:
            one = f"({' | '.join(items)})"
            head, end = self._head(begins, form.before, ""), self._spaced(form.after)
            self._starts.append(name)
            self._lines.append(f'{name}: {head} {one} ("," " "? {one})* {end}')

    def _body(self, function: Function, form: JsonForm | PythonForm, name: str) -> str:
        """Arguments and what stands behind them."""
        if isinstance(form, JsonForm):
            return f"{self._arguments(function)} {self._spaced(form.after)}"
        if self._python_rules is None:
            self._python_rules = PythonRules(_CALL_LAYOUT)
        return f"{self._python_rules.arguments(function.schema, name)} {self._spaced(form.after)}"

    def _add(self, function: Function, form: Form, name: str, begins: str) -> bool:
        if function.input_grammar is not None:
            body = self._input(function, function.input_grammar, form)
        elif isinstance(form, JsonForm | PythonForm):
            body = self._body(function, form, name)
        elif isinstance(form, QuotedForm):
            body = f"{self._quoted(function, form, name)} {self._spaced(form.after)}"
        else:
            assert not isinstance(form, ListForm)
            rules = TaggedRules(form, self._special_ids, _CALL_LAYOUT, name)
            if not rules.is_possible:
                return False
            body = f"{rules.arguments(function.schema)} {self._spaced(form.after)}"
            self._lines += rules.lines
        self._starts.append(name)
        self._lines.append(f"{name}: {self._head(begins, form.before, function.name)} {body}")
        return True

    def grammar(self, start: str, more: Sequence[str] = ()) -> str:
        """The whole, as llguidance takes it; ``more``: further rules."""
        shared = [rules.lines for rules in (self._quoted_rules, self._python_rules) if rules]
        lines = [f"start: {start}", *more, *self._lines, *(line for lines in shared for line in lines)]
        return _lark_grammar("\n".join(lines))

    def _head(self, begins: str, before: str, name: str) -> str:
        if begins:
            return self._spaced(begins + before, name)
        gap = _GAP + " " if before[:1].isspace() else ""
        return gap + self._spaced(before.lstrip(), name)

    def _spaced(self, text: str, name: str = "") -> str:
        return spaced(text, name, self._special_ids)

    def _input(self, function: Function, grammar: str, form: Form) -> str:
        """What stands before an input; note what follows."""
        opens, closes = input_marks(form)
        closing = f"start: {literals(closes, self._special_ids)} {self._spaced(form.after)}"
        before = form.before.replace("{name}", function.name).partition("{id}")[2] or form.before
        before = before.replace("{name}", function.name)
        is_escaped = isinstance(form, JsonForm | PythonForm)
        self.inputs.append(Input(tight(before + opens), grammar, _lark_grammar(closing), is_escaped))
        return literals(opens, self._special_ids)

    def _arguments(self, function: Function) -> str:
        """The rule of a function's arguments as JSON, which all its forms share."""
        if function.name not in self._of_arguments:
            rule = self._of_arguments[function.name] = f"arguments_{len(self._of_arguments)}"
            schema = json.dumps({**function.schema, "x-guidance": _CALL_LAYOUT})
            self._lines.append(f"{rule}: %json {schema}")
        return self._of_arguments[function.name]

    def _quoted(self, function: Function, form: QuotedForm, name: str) -> str:
        if self._quoted_rules is None:
            self._quoted_rules = QuotedRules(form.quote, self._special_ids, _CALL_LAYOUT)
        return self._quoted_rules.arguments(function.schema, name)


def tight(text: str) -> str:
    """A text without its spaces and newlines, which a model may leave out."""
    return "".join(text.split())


def input_marks(form: Form) -> tuple[str, str]:
    """What stands before and behind the text of a tool that takes one text only."""
    if isinstance(form, JsonForm):
        return f'{{"{INPUT}": "', '"}'
    if isinstance(form, PythonForm):
        return f'({INPUT}="', '")'
    if isinstance(form, QuotedForm):
        return f"{{{INPUT}:{form.quote}", form.quote + "}"
    assert isinstance(form, TaggedForm)
    return form.opens.replace("{name}", INPUT), form.closes


def _lark_grammar(lark: str) -> str:
    return json.dumps({"grammars": [{"lark_grammar": lark}]})
