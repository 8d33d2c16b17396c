"""From a request to what constrains its answer: a schema, a call that must be made, or calls that may be."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from edgemoe.api import Constraint
from edgemoe.errors import RequestError
from edgemoe.server.call_constraint import CallConstraint
from edgemoe.server.constraint import Afterwards, GrammarConstraint
from edgemoe.server.conversation import answer_begun
from edgemoe.server.dialects import Dialect, Opening
from edgemoe.server.failures import Failure, unsupported
from edgemoe.server.grammar import CallGrammar, Function, call_grammar, json_grammar
from edgemoe.server.held_calls import HeldCalls
from edgemoe.server.local_model import LocalModel
from edgemoe.server.request import AUTO, NAMED, REQUIRED, AnswerRequest
from edgemoe.server.schema_levels import MOST_LEVELS, is_too_deep

Maker = Callable[[], Constraint | None]
_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


def plan_constraint(local: LocalModel, dialect: Dialect, request: AnswerRequest, prompt: str) -> Maker:
    """What makes a constraint for each answer to a request.

    Raises:
        Failure: the schema cannot be kept to, or two things are asked for at once.
    """
    must_call = request.tool_choice.kind in {REQUIRED, NAMED}
    if request.schema is not None and must_call:
        raise unsupported("response_format", "the answer is a call here; leave it or tool_choice out")
    if must_call:
        return _forced(local, dialect, request, prompt)
    if request.schema is not None:
        begins = dialect.answer_begins(prompt, is_call=False, begun=answer_begun(request))
        return _of_schema(local, request.schema, begins)
    if request.tools and request.tool_choice.kind == AUTO and dialect.openings:
        return _held(local, dialect, request, prompt)
    return lambda: None


def _of_schema(local: LocalModel, schema: Mapping[str, Any], begins: re.Pattern[str] | None) -> Maker:
    _check_levels(schema, "response_format")
    grammar = json_grammar(schema)
    _check(local, grammar, "response_format")
    return lambda: _afterwards(local, GrammarConstraint(local.vocabulary(), grammar), begins)


def _forced(local: LocalModel, dialect: Dialect, request: AnswerRequest, prompt: str) -> Maker:
    name = request.tool_choice.name
    functions = [function for function in _functions(request) if name in {None, function.name}]
    for function in functions:
        _check_levels(function.schema, "tools")
    call, special_ids = dialect.forced_call, local.model.tokenizer.special_ids()
    grammar = call_grammar(functions, call.begins, [call.form], special_ids)
    if grammar is None:
        raise unsupported("tool_choice", "this model's calls cannot be held to a form; leave it at auto")
    _check(local, grammar.grammar, "tools")
    begins = dialect.answer_begins(prompt, is_call=True, begun=answer_begun(request))
    return lambda: _afterwards(local, CallConstraint(local.vocabulary(), grammar), begins)


def _held(local: LocalModel, dialect: Dialect, request: AnswerRequest, prompt: str) -> Maker:
    grammars: dict[Opening, CallGrammar | None] = {}

    def begin(opening: Opening, begun: str) -> CallConstraint | None:
        if opening not in grammars:
            special_ids = local.model.tokenizer.special_ids()
            functions = _functions(request, request.loose_tools, can_be_deep=False)
            grammars[opening] = call_grammar(functions, "", opening.forms, special_ids)
        grammar = grammars[opening]
        try:
            return None if grammar is None else CallConstraint(local.vocabulary(), grammar, begun)
        except RequestError:  # the model has no token that ends an answer
            return None

    watch = local.call_watch(dialect)
    is_thinking = dialect.opens_thought(prompt, answer_begun(request))
    return lambda: HeldCalls(watch, begin, is_thinking=is_thinking)


def _functions(
    request: AnswerRequest, loose: frozenset[str] = frozenset(), *, can_be_deep: bool = True
) -> list[Function]:
    """The functions of a request; of those that are loose, or deeper than they can be, arguments are any
    object.
    """
    out = []
    for tool in request.tools:
        name, parameters = tool["function"]["name"], tool["function"].get("parameters") or {}
        is_any = name in loose or (not can_be_deep and is_too_deep(parameters))
        schema = _ANY_OBJECT if is_any else _closed({"type": "object", **parameters})
        out.append(Function(name, schema, request.input_grammars.get(name)))
    return out


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a function: those it names and no others, unless it says otherwise. Schemas allow others
    where nothing is said, and small models go on making some up.
    """
    is_open = schema.keys() & {"$ref", "allOf", "anyOf", "oneOf", "patternProperties", "additionalProperties"}
    return schema | ({"additionalProperties": False} if "properties" in schema and not is_open else {})


def _check_levels(schema: Mapping[str, Any], what: str) -> None:
    if is_too_deep(schema):
        message = f"{what}: the schema leads through more than {MOST_LEVELS} levels of definitions"
        raise Failure(400, message, "invalid_schema", what)


def _check(local: LocalModel, grammar: str, what: str) -> None:
    wrong = local.vocabulary().check(grammar)
    if wrong:
        raise Failure(400, f"{what}: the schema cannot be used: {wrong[:300]}", "invalid_schema", what)


def _afterwards(local: LocalModel, inner: Constraint, begins: re.Pattern[str] | None) -> Constraint:
    if begins is None:
        return inner
    return Afterwards(inner, local.model.tokenizer, local.vocabulary(), begins)
