"""Long texts in pieces that are tokenised one by one: tokenising takes some 200 bytes for every character.

A text may be cut where its tokens are those of both sides. That is looked for at the beginnings of lines and
tried on what surrounds them; a tokenizer that nowhere allows it gets the text whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

# Characters of a piece: some MiB while it is tokenised, which the memory plan's margins hold.
PIECE_CHARACTERS = 1 << 15
# Characters on each side of a cut that it is tried on: more than any one token of a vocabulary has.
_LAP = 256
# Lines that are tried, from the end of a piece backwards.
_MOST_TRIES = 16

Encode = Callable[[str], list[int]]


def pieces(text: str, encode: Encode) -> Iterator[str]:
    """The text in pieces whose tokens, by ``encode``, are those of the whole, one after the other."""
    start = 0
    while len(text) - start > 2 * PIECE_CHARACTERS:
        cut = _find_cut(text, start + PIECE_CHARACTERS, start + 2 * PIECE_CHARACTERS, encode)
        if cut is None:
            break
        yield text[start:cut]
        start = cut
    yield text[start:]


def _find_cut(text: str, first: int, last: int, encode: Encode) -> int | None:
    """The last beginning of a line in [first, last) where the text may be cut."""
    end = last
    for _ in range(_MOST_TRIES):
        end = text.rfind("\n", first, end)
        if end < 0:
            return None
        cut = end + 1
        if not text[cut].isalnum():
            continue
        before, after = text[cut - _LAP : cut], text[cut : cut + _LAP]
        if encode(before + after) == encode(before) + encode(after):
            return cut
    return None
