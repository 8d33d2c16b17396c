"""Several answers in one call: several to one prompt, or one to each of several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from edgemoe import arguments
from edgemoe.engine.answer import Generation
from edgemoe.engine.generation import Stream
from edgemoe.engine.requests import AnswerOptions
from edgemoe.engine.session import Session
from edgemoe.engine.together import write_all
from edgemoe.errors import RequestError
from edgemoe.progress import Progress


def options_of_each(n: int, options: AnswerOptions) -> list[AnswerOptions]:
    """The options of each of ``n`` answers to one prompt: with a seed, each has a seed of its own.

    Raises:
        RequestError: there are to be none, or several with one constraint.
    """
    n = arguments.whole("n", n, 1)
    if n > 1:
        refuse_constraint(options)
    seed = options.get("seed")
    if seed is None:
        return [options] * n
    first = arguments.whole("seed", seed, 0)
    return [{**options, "seed": first + i} for i in range(n)]


def refuse_constraint(options: AnswerOptions) -> None:
    """Refuse a constraint where there are several answers: it follows the tokens of one.

    Raises:
        RequestError: there is one.
    """
    if options.get("constraint") is not None:
        raise RequestError("a constraint is of one answer only: call generate once for each, with its own")


def checked_prompts(prompts: Any) -> Iterable[str | Sequence[int]]:
    """Prompts as they were given.

    Raises:
        RequestError: they are no list.
    """
    if isinstance(prompts, str | bytes):
        raise RequestError("prompts is one text; give a list of them, or call generate")
    if isinstance(prompts, Mapping) or not isinstance(prompts, Iterable):
        raise RequestError(f"prompts is {prompts!r:.60}; give a list of texts or of token ids")
    return prompts


def write_each(session: Session, streams: Sequence[Stream], on_answer: Progress | None) -> list[Generation]:
    """Answers to several prompts, as many at once as it pays; ``on_answer`` is told after each."""
    if not streams:
        return []
    longest = max(stream.num_tokens for stream in streams)
    write_all(streams, session.num_at_once(longest), _counter(on_answer, len(streams)))
    return [stream.generation for stream in streams]


def write_of_one(session: Session, streams: Sequence[Stream]) -> list[Generation]:
    """Answers to one prompt, which is read once."""
    longest = max(stream.num_tokens for stream in streams)
    num_at_once = session.num_at_once(longest, streams[0].num_common)
    for start in range(0, len(streams), num_at_once):
        together = streams[start : start + num_at_once]
        for stream in together if len(together) > 1 else ():
            stream.prepare()  # the first computes it, and the others share that
        write_all(together, num_at_once)
    return [stream.generation for stream in streams]


def _counter(on_answer: Progress | None, total: int) -> Callable[[], None]:
    num_done = 0

    def count() -> None:
        nonlocal num_done
        num_done += 1
        if on_answer is not None:
            on_answer(num_done, total)

    return count
