"""Which texts share a step: pure rules, from the texts that wait and the times that steps took.

A *wish* is what one text wants of a step: the next chunk of its prompt, or a token of its answer and those
that are drafted to follow it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

# Answers that are written at once where that pays; no more rows than the smallest chunk of a prompt has.
MOST_ANSWERS = 16
# Answers go together where all experts are in memory, or as good as all: this share of the time at most is
# waiting. Else a second answer's experts may cost more than they would later, or less: see company.py.
LITTLE_WAITING = 0.02
# Steps of answers between two chunks of prompts that take longer than they do. Of an answer of 40 tokens and
# more, 95 in 100 then come as fast as if nobody else had a prompt, wherever in it the first chunk falls. One
# chunk in 21 steps would be too many for that where an answer begins and ends beside one.
STEPS_PER_CHUNK = 30
# Who has just got a token will soon ask for the next: a step waits for this share of its time, and no longer
# than so many seconds.
GATHERING_SHARE = 0.5
MOST_GATHERING_S = 0.02
# A chunk of so many tokens needs nearly all experts, and another text's chunk beside it saves a reading of
# them. Where the last chunk that was alone spent more than this share of its time on waiting for storage, the
# next one waits for company: this share of what that one took, and no longer than the seconds above.
LONG_CHUNK = 128
MUCH_WAITING = 0.2
CHUNK_PATIENCE_SHARE = 0.02


class Wish(NamedTuple):
    """What a text wants of a step."""

    num_rows: int
    is_answer: bool  # a token of an answer, not a chunk of a prompt
    is_alone: bool = False  # in a step of its own


class Limits(NamedTuple):
    """How much may run together."""

    num_rows: int  # that working memory was planned for
    num_answers: int


def answers_together(most: int, holds_all: bool, waiting_share: float, is_faster: bool) -> int:
    """How many answers are written at once, of the ``most`` that there is memory for.

    ``holds_all``: the cache has room for every expert. ``waiting_share``: of the time that recent steps of
    answers took, what was waiting for storage. ``is_faster``: whether that is what measurement says.
    """
    return most if is_faster or holds_all or waiting_share <= LITTLE_WAITING else 1


def choose(waiting: Sequence[Wish], limits: Limits, num_owed: int) -> list[int]:
    """The wishes, by their place in the line, that the next step fulfils; one at least.

    ``num_owed`` steps of answers come before the next chunk of a prompt.
    """
    if waiting[0].is_alone:
        return [0]
    free = [i for i, wish in enumerate(waiting) if not wish.is_alone]
    answers = _within(waiting, [i for i in free if waiting[i].is_answer][: limits.num_answers], limits)
    prompts = [i for i in free if not waiting[i].is_answer]
    if answers and (num_owed > 0 or not prompts):
        return answers
    # What is in a chunk needs nearly all experts: further rows cost little.
    chosen = prompts[:1]
    num_rows = waiting[chosen[0]].num_rows
    for i in (*prompts[1:], *answers):
        if num_rows + waiting[i].num_rows <= limits.num_rows:
            chosen.append(i)
            num_rows += waiting[i].num_rows
    return sorted(chosen)


def _within(waiting: Sequence[Wish], answers: Sequence[int], limits: Limits) -> list[int]:
    """The first of these answers, as many as may have their rows in one step."""
    num_rows = 0
    chosen: list[int] = []
    for i in answers:
        num_rows += waiting[i].num_rows
        if chosen and num_rows > limits.num_rows:
            break
        chosen.append(i)
    return chosen


def steps_owed(chunk_s: float, token_s: float) -> int:
    """Steps of answers that come after a chunk of a prompt, if anybody asks for them."""
    return 1 if chunk_s <= token_s else STEPS_PER_CHUNK


def gathering_s(token_s: float) -> float:
    """How long a step waits for those that had a token just now."""
    return min(GATHERING_SHARE * token_s, MOST_GATHERING_S)


class LoneChunk(NamedTuple):
    """What a long chunk of a prompt that had a step to itself took."""

    took_s: float = 0.0
    waited_s: float = 0.0  # of that, for storage


def chunk_patience_s(waiting: Sequence[Wish], limits: Limits, last: LoneChunk) -> float:
    """How long a chunk waits for another text's to go with it.

    Nobody waits who has company, or for whose like a step has no room.
    """
    first = waiting[0]
    is_lone_chunk = len(waiting) == 1 and not first.is_answer and not first.is_alone
    if not is_lone_chunk or not LONG_CHUNK <= first.num_rows <= limits.num_rows / 2:
        return 0.0
    if last.waited_s <= MUCH_WAITING * last.took_s:
        return 0.0
    return min(CHUNK_PATIENCE_SHARE * last.took_s, MOST_GATHERING_S)
