"""The seam to where drafts come from, and drafts from the text itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgemoe.native import MOST_AGREEING, FloatArray, SuffixIndex


@dataclass(frozen=True, slots=True)
class Draft:
    """A guess at the next tokens of a text, and of what kind the guess is, token by token."""

    token_ids: Sequence[int] = ()
    kinds: Sequence[int] = ()
    reading_s: float = 0.0  # that it took to read what of the text had not been followed

    def cut(self, most: int) -> Draft:
        """The first tokens of it, so many at most."""
        return Draft(self.token_ids[:most], self.kinds[:most], self.reading_s)


NO_DRAFT = Draft()


@dataclass(frozen=True, slots=True)
class Room:
    """What a drafter may know of the text that it drafts for."""

    num_tokens: int  # the most that it may have
    is_cancelled: Callable[[], bool] = lambda: False


# Told where tokens of the text stand, these, and what the model made of them (T, D).
Observe = Callable[[int, "Sequence[int]", FloatArray], None]


class Drafter(Protocol):
    """Guesses how one text goes on. Used by one thread at a time.

    One that has a method ``observe`` (see Observe) is told of every step of the text.
    """

    @property
    def expected(self) -> Mapping[int, float]:
        """The chance that a token of each kind is right, before any was seen."""
        ...

    @property
    def unguessed(self) -> int | None:
        """The kind of a token that has not been guessed yet; None where guessing is nothing beside a step."""
        ...

    @property
    def token_s(self) -> float:
        """What guessing a token takes; 0 where it is nothing beside a step, or not known yet."""
        ...

    def behind_s(self, num_tokens: int) -> float:
        """What it would take to follow a text of so many tokens up to its end, before anything is guessed."""
        ...

    def draft(self, token_ids: list[int], token_id: int, most: int) -> Draft:
        """At most so many tokens that may follow ``token_id``, which follows ``token_ids``.

        Those of one call are a beginning of those of the next.
        """
        ...

    def close(self) -> None:
        """The text has ended."""
        ...


# By how many tokens of the text's end stood before: 3 or 4, 5 to 8, 9 to 16, 17 and more.
_TEXT_KINDS = {2: 0.35, 3: 0.55, 4: 0.75, 5: 0.9}


class TextDrafter:
    """What followed where the text's end stood before: good for quotes, code that is edited, and lists."""

    unguessed: int | None = None
    token_s = 0.0

    def __init__(self) -> None:
        self._index = SuffixIndex()

    def behind_s(self, num_tokens: int) -> float:
        """See Drafter."""
        return 0.0

    @property
    def expected(self) -> Mapping[int, float]:
        """See Drafter."""
        return _TEXT_KINDS

    def draft(self, token_ids: list[int], token_id: int, most: int) -> Draft:
        """See Drafter."""
        match = self._index.look(token_ids, token_id)
        if match is None:
            return NO_DRAFT
        end, length = match
        found = self._index.after(end, most)
        return Draft(found, _KINDS[length : length + len(found)])

    def close(self) -> None:
        """See Drafter."""


# By how many tokens agreed, as far as they are ever compared or drafted.
_KINDS = [min(max(length - 1, 0).bit_length(), max(_TEXT_KINDS)) for length in range(MOST_AGREEING + 512)]
