"""Where the end of a text stood before in it: what followed there is a guess at what follows now.

Chains of equal hashes, as compressors of the LZ77 kind keep them: a table has the latest place of every hash
of ``FEWEST`` tokens, and each place knows the one before it. Adding a token takes constant time, and so does
looking, within ``MOST_PLACES`` and ``LONGEST``. It takes 4 bytes for a token and 4 to 16 for its table.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

# Tokens that must agree before what followed is worth a guess.
FEWEST = 3
# Tokens that are compared: whether more agree says little.
LONGEST = 32
# Places that are compared, the latest first: in text that repeats one phrase there is no end of them.
MOST_PLACES = 32
# Entries of the table at first; it doubles when there are as many tokens.
_FIRST_SIZE = 1024
# Odd, with its bits well spread (the golden ratio, Knuth 6.4).
_MULTIPLIER = 0x9E3779B97F4A7C15
_MASK_64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Match:
    """The end of a text stood before in it: the ``length`` tokens before ``end`` are also its last ones."""

    end: int
    length: int


class SuffixIndex:
    """The tokens of one text, which only grows."""

    def __init__(self) -> None:
        self._tokens = array("i")
        self._latest = array("i", [-1]) * _FIRST_SIZE  # by hash: the end of the latest place
        self._before = array("i")  # by the end of a place: that of the one before, of the same hash

    def __len__(self) -> int:
        return len(self._tokens)

    def extend(self, token_ids: Sequence[int]) -> None:
        """The text goes on with these tokens."""
        for token_id in token_ids:
            if len(self._tokens) >= len(self._latest):
                self._widen()
            self._tokens.append(token_id)
            self._before.append(-1)
            self._link(len(self._tokens))

    def find(self) -> Match | None:
        """Where as many as possible of the text's last tokens stood before; of equal places the latest."""
        size = len(self._tokens)
        best_end, best_length = 0, FEWEST - 1
        end, num_places = self._before[size - 1] if size >= FEWEST else -1, 0
        while end >= 0 and num_places < MOST_PLACES:
            length = self._common(end)
            if length >= FEWEST:  # else another place of the same hash
                num_places += 1
                if length > best_length:
                    best_end, best_length = end, length
                    if length == LONGEST:
                        break
            end = self._before[end - 1]
        return Match(best_end, best_length) if best_length >= FEWEST else None

    def after(self, match: Match, count: int) -> list[int]:
        """The tokens that followed there; where the text ends, it is taken to go on repeating itself."""
        period = len(self._tokens) - match.end
        return [self._tokens[match.end + i % period] for i in range(count)]

    def _common(self, end: int) -> int:
        """How many tokens before ``end`` are the text's last ones, up to LONGEST."""
        tokens, size, length = self._tokens, len(self._tokens), 0
        most = min(LONGEST, end)
        while length < most and tokens[end - 1 - length] == tokens[size - 1 - length]:
            length += 1
        return length

    def _link(self, end: int) -> None:
        """Enter the place that ends here."""
        if end < FEWEST:
            return
        place = self._place(end)
        self._before[end - 1] = self._latest[place]
        self._latest[place] = end

    def _place(self, end: int) -> int:
        hashed = 0
        for token_id in self._tokens[end - FEWEST : end]:
            hashed = (hashed + token_id + 1) * _MULTIPLIER & _MASK_64
        return (hashed >> 32) % len(self._latest)

    def _widen(self) -> None:
        self._latest = array("i", [-1]) * (2 * len(self._latest))
        for end in range(1, len(self._tokens) + 1):
            self._link(end)
