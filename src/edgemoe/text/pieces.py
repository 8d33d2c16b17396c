"""Long texts in pieces that are tokenised one by one: tokenising takes some 200 bytes for every character.

A text may be cut where its tokens are those of both sides. That is looked for at the beginnings of lines, at
spaces between words and after punctuation, and tried on what surrounds them; a space may get lost where the
tokenizer puts one before each text. A tokenizer that nowhere allows it gets the text whole.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator

# Characters of a piece: some MiB while it is tokenised, which the memory plan's margins hold.
PIECE_CHARACTERS = 1 << 15
# Characters on each side of a cut that it is tried on: more than any one token of a vocabulary has.
_LAP = 256
# Places of one kind that are tried, from the end of a piece backwards.
_MOST_TRIES = 8
# Where a text may be cut, those that serve most tokenizers first.
_PLACES = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?<=\n)(?=[^\W_])",  # a line begins
        r"(?= \S)",  # a space before a word, which goes with it
        r"(?<=\n)(?=[^\S\n])",  # a line that begins with spaces
        r"(?<=[^\W_]) (?=[^\W_])",  # the same, left out: the second piece gets one anyway
        r"(?<=[^\w\s])(?=[^\W_])",  # after punctuation, where nothing is between words
    )
)

Encode = Callable[[str], list[int]]


def pieces(text: str, encode: Encode) -> Iterator[str]:
    """The text in pieces whose tokens, by ``encode``, are those of the whole, one after the other."""
    start = 0
    while len(text) - start > 2 * PIECE_CHARACTERS:
        cut = _find_cut(text, start + PIECE_CHARACTERS, start + 2 * PIECE_CHARACTERS, encode)
        if cut is None:
            break
        yield text[start : cut[0]]
        start = cut[1]
    yield text[start:]


def count_more(text: str, encode: Encode, most: int) -> list[int] | None:
    """Some ``most`` + 1 tokens or more, if a text surely has so many; None if it may have fewer.

    It is cut anywhere, so the tokens are good for counting alone: a cut changes no more than those of the
    characters next to it.
    """
    found: list[int] = []
    for number, start in enumerate(range(0, len(text), PIECE_CHARACTERS), start=1):
        found += encode(text[start : start + PIECE_CHARACTERS])
        if len(found) - number * _LAP > most:
            return found
    return None


def _find_cut(text: str, first: int, last: int, encode: Encode) -> tuple[int, int] | None:
    """Where in [first, last) a piece may end and the next one begin."""
    for place in _PLACES:
        for match in reversed(deque(place.finditer(text, first, last), _MOST_TRIES)):
            end, start = match.span()
            before, after = text[end - _LAP : end], text[start : start + _LAP]
            if encode(text[end - _LAP : start + _LAP]) == encode(before) + encode(after):
                return end, start
    return None
