"""Options of an answer, by name, as callers give them, and the request that is made from them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypedDict

from edgemoe.arguments import texts
from edgemoe.engine.answer import Request
from edgemoe.engine.sampling import Constraint, Sampling
from edgemoe.errors import RequestError


class AnswerOptions(TypedDict, total=False):
    """Keyword arguments of ``Model.generate``, ``stream``, ``chat`` and their siblings.

    None is required, and one that is None counts as left out.
    """

    max_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    logit_bias: Mapping[int, float] | None
    seed: int | None
    stop: str | Sequence[str] | None
    logprobs: int | None
    constraint: Constraint | None
    progress: Callable[[int, int], None] | None


_OF_SAMPLING = frozenset(field.name for field in fields(Sampling))
_OF_REQUEST = frozenset(AnswerOptions.__annotations__) - _OF_SAMPLING


def make_request(
    prompt: Sequence[int],
    stop_ids: frozenset[int],
    options: Mapping[str, Any],
    own: Mapping[str, Any] | None = None,
) -> Request:
    """The request that ``options``, as in AnswerOptions, describe; one that is None is left out.

    ``own`` is what the model's authors say of drawing tokens, for what the options leave out.

    Raises:
        RequestError: an option has no such name or value.
    """
    unknown = next((name for name in options if name not in AnswerOptions.__annotations__), None)
    if unknown is not None:
        close = difflib.get_close_matches(unknown, AnswerOptions.__annotations__, 1)
        hint = f"did you mean {close[0]!r}?" if close else "see Model.stream for those there are"
        raise RequestError(f"there is no option {unknown!r}; {hint}")
    given = {**(own or {}), **{name: value for name, value in options.items() if value is not None}}
    sampling = Sampling(**{name: value for name, value in given.items() if name in _OF_SAMPLING})
    rest = {name: value for name, value in given.items() if name in _OF_REQUEST}
    stops = texts("stop", rest.pop("stop", None))
    return Request(prompt, sampling=sampling, stop=stops, stop_ids=stop_ids, **rest)
