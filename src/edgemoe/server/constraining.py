"""From a request to what constrains its answer: a schema, or a call that must be made."""

from __future__ import annotations

import re
from collections.abc import Callable

from edgemoe.api import Constraint
from edgemoe.server.constraint import Afterwards, GrammarConstraint, Vocabulary
from edgemoe.server.dialects import Dialect
from edgemoe.server.failures import Failure, unsupported
from edgemoe.server.grammar import call_grammar, json_grammar
from edgemoe.server.local_model import LocalModel
from edgemoe.server.request import NAMED, REQUIRED, AnswerRequest

Maker = Callable[[], Constraint | None]


def plan_constraint(local: LocalModel, dialect: Dialect, request: AnswerRequest, prompt: str) -> Maker:
    """What makes a constraint for each answer to a request.

    Raises:
        Failure: the schema cannot be kept to, or two things are asked for at once.
    """
    must_call = request.tool_choice.kind in {REQUIRED, NAMED}
    if request.schema is None and not must_call:
        return lambda: None
    if request.schema is not None and must_call:
        raise unsupported("response_format", "the answer is a call here; leave it or tool_choice out")
    vocabulary = local.vocabulary()
    grammar = _grammar(local, dialect, request)
    wrong = vocabulary.check(grammar)
    if wrong:
        what = "tools" if must_call else "response_format"
        raise Failure(400, f"{what}: the schema cannot be used: {wrong[:300]}", "invalid_schema", what)
    begins = dialect.answer_begins(prompt, is_call=must_call)
    return lambda: _make(local, vocabulary, grammar, begins)


def _make(
    local: LocalModel, vocabulary: Vocabulary, grammar: str, begins: re.Pattern[str] | None
) -> Constraint:
    inner = GrammarConstraint(vocabulary, grammar)
    if begins is None:
        return inner
    return Afterwards(inner, local.model.tokenizer, vocabulary, begins)


def _grammar(local: LocalModel, dialect: Dialect, request: AnswerRequest) -> str:
    if request.schema is not None:
        return json_grammar(request.schema)
    name = request.tool_choice.name
    tools = [tool for tool in request.tools if name in {None, tool["function"]["name"]}]
    return call_grammar(tools, dialect.forced_call, local.model.tokenizer.special_ids())
