"""From a request to what constrains its answer: a schema, a call that must be made, or calls that may be."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgemoe.api import Constraint
from edgemoe.errors import RequestError
from edgemoe.server.call_constraint import CallConstraint
from edgemoe.server.constraint import Afterwards, GrammarConstraint
from edgemoe.server.conversation import answer_begun
from edgemoe.server.dialects import Dialect, Opening
from edgemoe.server.failures import Failure, unsupported
from edgemoe.server.grammar import (
    CallGrammar,
    Function,
    arguments_grammar,
    call_grammar,
    json_grammar,
    json_or_call_grammar,
)
from edgemoe.server.held_calls import HeldCalls
from edgemoe.server.local_model import LocalModel
from edgemoe.server.request import AUTO, NAMED, REQUIRED, AnswerRequest
from edgemoe.server.schema_levels import MOST_LEVELS, is_too_deep
from edgemoe.server.schema_numbers import rounded_choice, with_float_bounds
from edgemoe.server.schema_or_calls import SchemaOrCalls
from edgemoe.server.schema_references import with_coded_references
from edgemoe.server.schema_walk import without_nulls

Maker = Callable[[], Constraint | None]
_OPENS = {"$ref", "allOf", "anyOf", "oneOf", "patternProperties", "additionalProperties"}
_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


def plan_constraint(local: LocalModel, dialect: Dialect, request: AnswerRequest, prompt: str) -> Maker:
    """What makes a constraint for each answer to a request.

    Raises:
        Failure: the schema cannot be kept to.
    """
    must_call = request.tool_choice.kind in {REQUIRED, NAMED}
    may_call = bool(request.tools) and request.tool_choice.kind == AUTO
    if must_call:  # a schema is that of answers
        return _forced(local, dialect, request, prompt)
    if request.schema is not None:
        begins = dialect.answer_begins(prompt, is_call=False, begun=answer_begun(request))
        if may_call:
            return _either(local, dialect, request, prompt, begins)
        return _of_schema(local, request.schema, begins)
    if may_call and dialect.openings:
        return _held(local, dialect, request, dialect.opens_thought(prompt, answer_begun(request)))
    return lambda: None


def _of_schema(local: LocalModel, schema: Mapping[str, Any], begins: re.Pattern[str] | None) -> Maker:
    make = _schema_alone(local, schema)
    return lambda: _afterwards(local, make(), begins)


def _schema_alone(local: LocalModel, schema: Mapping[str, Any]) -> Callable[[], GrammarConstraint]:
    _check_schema(schema, "response_format", "response_format")
    grammar = json_grammar(_as_taken(schema))
    _check(local, grammar, "response_format", "response_format")
    return lambda: GrammarConstraint(local.vocabulary(), grammar)


def _either(
    local: LocalModel, dialect: Dialect, request: AnswerRequest, prompt: str, begins: re.Pattern[str] | None
) -> Maker:
    """An answer of a schema, or calls: a client with functions sends its schema with each turn."""
    whole = _schema_alone(local, request.schema or {})
    schema, openings = _as_taken(request.schema or {}), dialect.first_calls
    hold = _held(local, dialect, request, is_thinking=False)
    hold_before = _held(local, dialect, request, dialect.opens_thought(prompt, answer_begun(request)))
    tokenizer, vocabulary = local.model.tokenizer, local.vocabulary()
    sections, special_ids = dialect.call_sections, tokenizer.special_ids()
    begins_call = [*(opening.mark for opening in openings), *sections]

    def grammar_of(functions: Sequence[Function]) -> CallGrammar:
        has_gap = begins is not None  # behind a thought
        return json_or_call_grammar(schema, functions, openings, sections, special_ids, has_gap=has_gap)

    grammar = grammar_of(_functions(request, request.loose_tools, is_forced=False))
    if openings and vocabulary.check(grammar.grammar):  # the parameters of one cannot be kept to
        grammar = grammar_of(_functions(request, frozenset(map(_name_of, request.tools))))

    def either() -> Constraint:
        return SchemaOrCalls(CallConstraint(vocabulary, grammar), hold(), begins_call)

    if begins is None:
        return either
    if openings:
        return lambda: Afterwards(either(), tokenizer, vocabulary, begins, hold_before())
    return lambda: Afterwards(whole(), tokenizer, vocabulary, begins, hold_before())


def _forced(local: LocalModel, dialect: Dialect, request: AnswerRequest, prompt: str) -> Maker:
    name = request.tool_choice.name
    functions = [function for function in _functions(request) if name in {None, function.name}]
    for function in functions:
        _check_schema(function.schema, f"tools: {function.name!r}", "tools")
    call, special_ids = dialect.forced_call, local.model.tokenizer.special_ids()
    grammar = call_grammar(functions, call.begins, [call.form], special_ids)
    if grammar is None:
        raise unsupported("tool_choice", "this model's calls cannot be held to a form; leave it at auto")
    _check_calls(local, grammar, functions)
    begins = dialect.answer_begins(prompt, is_call=True, begun=answer_begun(request))
    return lambda: _afterwards(local, CallConstraint(local.vocabulary(), grammar), begins)


def _held(
    local: LocalModel, dialect: Dialect, request: AnswerRequest, is_thinking: bool
) -> Callable[[], HeldCalls]:
    grammars: dict[Opening, CallGrammar | None] = {}

    def begin(opening: Opening, begun: str) -> CallConstraint | None:
        if opening not in grammars:
            special_ids = local.model.tokenizer.special_ids()
            functions = _functions(request, request.loose_tools, is_forced=False)
            grammars[opening] = call_grammar(functions, "", opening.forms, special_ids)
        grammar = grammars[opening]
        try:
            return None if grammar is None else CallConstraint(local.vocabulary(), grammar, begun)
        except RequestError:  # the model has no token that ends an answer
            return None

    watch = local.call_watch(dialect)
    return lambda: HeldCalls(watch, begin, is_thinking=is_thinking)


def _functions(
    request: AnswerRequest, loose: frozenset[str] = frozenset(), *, is_forced: bool = True
) -> list[Function]:
    """The functions of a request. Of those that are loose, and of those that cannot be kept to where no call
    ``is_forced``, arguments are any object.
    """
    out = []
    for tool in request.tools:
        name, parameters = _name_of(tool), tool["function"].get("parameters") or {}
        is_any = name in loose or (not is_forced and _wrong_with(parameters) is not None)
        schema = _ANY_OBJECT if is_any else _closed(parameters)
        out.append(Function(name, schema, request.input_grammars.get(name)))
    return out


def _name_of(tool: Mapping[str, Any]) -> str:
    return str(tool["function"]["name"])


def _closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a function: those it names and no others, unless it says otherwise. Schemas allow others
    where nothing is said, and small models go on making some up. A field that is null says nothing.
    """
    schema = _as_taken(without_nulls(schema)) | {"type": "object"}
    names, needed = schema.get("properties"), schema.get("required", ())
    is_odd = (
        isinstance(names, dict) and isinstance(needed, list) and not names.keys() >= set(map(str, needed))
    )
    is_open = is_odd or bool(schema.keys() & _OPENS)
    return schema | ({"additionalProperties": False} if names is not None and not is_open else {})


def _as_taken(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema in the words that llguidance takes as they are meant."""
    return with_float_bounds(with_coded_references(schema))


def _wrong_with(schema: Mapping[str, Any]) -> str | None:
    """Why a schema cannot be kept to that llguidance would take."""
    if is_too_deep(schema):
        return f"leads through more than {MOST_LEVELS} levels of definitions"
    if (number := rounded_choice(schema)) is not None:
        return f"asks for the number {number}, which is no float of 64 bits: ask for a text"
    return None


def _check_schema(schema: Mapping[str, Any], what: str, field: str) -> None:
    if wrong := _wrong_with(schema):
        raise Failure(400, f"{what}: the schema {wrong}", "invalid_schema", field)


def _check_calls(local: LocalModel, grammar: CallGrammar, functions: Sequence[Function]) -> None:
    """Say which function it is that cannot be kept to: clients send those of many authors."""
    if not local.vocabulary().check(grammar.grammar):
        return
    for function in functions:
        _check(local, arguments_grammar(function.schema), f"tools: {function.name!r}", "tools")
    _check(local, grammar.grammar, "tools", "tools")


def _check(local: LocalModel, grammar: str, what: str, field: str) -> None:
    wrong = local.vocabulary().check(grammar)
    if wrong:
        raise Failure(400, f"{what}: the schema cannot be used: {wrong[:300]}", "invalid_schema", field)


def _afterwards(local: LocalModel, inner: Constraint, begins: re.Pattern[str] | None) -> Constraint:
    if begins is None:
        return inner
    return Afterwards(inner, local.model.tokenizer, local.vocabulary(), begins)
