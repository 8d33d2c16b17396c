"""What a caller may say of an answer, by name, and the request that comes of it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypedDict

from edgemoe.engine.answer import Request
from edgemoe.engine.sampling import Constraint, Sampling
from edgemoe.errors import RequestError


class AnswerOptions(TypedDict, total=False):
    """Keyword arguments of ``Model.generate``, ``stream``, ``chat`` and their siblings; none is required."""

    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]
    seed: int | None
    stop: str | Sequence[str]
    logprobs: int | None
    constraint: Constraint | None
    progress: Callable[[int, int], None] | None


_OF_SAMPLING = frozenset(field.name for field in fields(Sampling))
_OF_REQUEST = frozenset(AnswerOptions.__annotations__) - _OF_SAMPLING


def make_request(token_ids: Sequence[int], stop_ids: frozenset[int], options: Mapping[str, Any]) -> Request:
    """The request that ``options``, as in AnswerOptions, describe.

    Raises:
        RequestError: an option has no such name or value.
    """
    unknown = next((name for name in options if name not in AnswerOptions.__annotations__), None)
    if unknown is not None:
        close = difflib.get_close_matches(unknown, AnswerOptions.__annotations__, 1)
        hint = f"did you mean {close[0]!r}?" if close else "see Model.stream for those there are"
        raise RequestError(f"there is no option {unknown!r}; {hint}")
    sampling = Sampling(**{name: value for name, value in options.items() if name in _OF_SAMPLING})
    rest = {name: value for name, value in options.items() if name in _OF_REQUEST}
    stop = rest.pop("stop", ())
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    return Request(token_ids, sampling=sampling, stop=stops, stop_ids=stop_ids, **rest)
