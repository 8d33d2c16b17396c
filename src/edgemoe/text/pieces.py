"""Long texts in pieces that are tokenised one by one: tokenising takes some 200 bytes for every character.

A text may be cut where its tokens are those of both sides. That is looked for at the beginnings of lines, at
spaces between words and after punctuation, then between any two characters, and tried on what surrounds them.
A space may get lost where the tokenizer puts one before each text; elsewhere a line's end stands before the
second piece, so that none is put there. A tokenizer that nowhere allows it gets the text whole, up to a size.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edgemoe.errors import RequestError

# Characters of a piece: some MiB while it is tokenised, which the memory plan's margins hold.
PIECE_CHARACTERS = 1 << 15
# Characters on each side of a cut that it is tried on: more than any one token of a vocabulary has.
_LAP = 256
# Where words do not say where a token begins, a run of equal letters agrees by chance: with these beside each
# other it does not.
_LAPS = (_LAP, _LAP - 1, _LAP - 3)
# Places of one kind that are tried, from the end of a piece backwards.
_MOST_TRIES = 8
# A multiple of most lengths of tokens, and of the three digits that many tokenizers take together: where a
# run of equal letters may be cut.
_RUN_CHARACTERS = 3 * PIECE_CHARACTERS // 2
# What cannot be cut is tokenised whole up to here.
_MOST_WHOLE = 1 << 18
# Stands before a piece to which the tokenizer would add a space.
_BEFORE = "\n"
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


@dataclass(frozen=True)
class Piece:
    """What is tokenised of a text at a time; the first ``num_before`` of its tokens are not the text's."""

    text: str
    num_before: int = 0


@dataclass(frozen=True)
class _Cut:
    """A piece ends at ``end``, the next one begins at ``start`` with ``before`` in front of it."""

    end: int
    start: int
    before: str = ""
    num_before: int = 0


def encode_in_parts(
    text: str, encode: Callable[[str, bool], list[int]], adds_special: bool, most: int | None
) -> Iterator[list[int]]:
    """The tokens of a text, part by part; ``encode(text, adds_special)`` gives those of a short one.

    What comes around a text is part of it if ``adds_special``. Of a text of more than ``most`` tokens the
    last part has as many as show that; they need not be the text's own.

    Raises:
        RequestError: as ``encode_piece``.
    """

    def bare(piece: str) -> list[int]:
        return encode(piece, False)

    is_long = len(text) > 2 * PIECE_CHARACTERS
    around = _around(bare("a"), encode("a", True)) if adds_special and is_long else ([], [])
    if around is None or not is_long:
        yield encode(text, adds_special)
        return
    more = None if most is None else count_more(text[: 2 * PIECE_CHARACTERS], bare, most)
    if more is not None:
        yield more
        return
    yield around[0]
    num_found = len(around[0])
    for piece in pieces(text, bare):
        if most is not None and len(piece.text) > 2 * PIECE_CHARACTERS:
            more = count_more(piece.text, bare, most + piece.num_before - num_found)
            if more is not None:
                yield more
                return
        part = encode_piece(piece, bare)
        num_found += len(part)
        yield part
    yield around[1]


def _around(bare: list[int], whole: list[int]) -> tuple[list[int], list[int]] | None:
    """What stands before and after the tokens ``bare`` in ``whole``; None where they are not in it."""
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    return None


def pieces(text: str, encode: Encode) -> Iterator[Piece]:
    """The text in pieces whose tokens, by ``encode``, are those of the whole, one after the other."""
    cut: _Cut | None = _Cut(0, 0)
    while cut is not None:
        last, cut = cut, None
        if len(text) - last.start > 2 * PIECE_CHARACTERS:
            cut = _next_cut(text, last, encode)
        end = len(text) if cut is None else cut.end
        yield Piece(last.before + text[last.start : end], last.num_before)


def encode_piece(piece: Piece, encode: Encode) -> list[int]:
    """The tokens of the text in a piece.

    Raises:
        RequestError: it is so long that tokenising it would take far more memory than a budget has for it.
    """
    if len(piece.text) > _MOST_WHOLE:
        raise RequestError(
            f"{len(piece.text)} characters in a row have no place where the tokenizer surely parts them,"
            " which takes too much memory; break them into lines"
        )
    return encode(piece.text)[piece.num_before :]


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


def _next_cut(text: str, last: _Cut, encode: Encode) -> _Cut | None:
    """The cut after another one: as near as there is one, but pieces are not short."""
    for first in range(last.start + PIECE_CHARACTERS, len(text) - PIECE_CHARACTERS, PIECE_CHARACTERS):
        if first - last.start > _MOST_WHOLE:
            break
        cut = _cut_between_words(text, first, encode) or _cut_anywhere(text, first, encode)
        if cut is None and first == last.start + PIECE_CHARACTERS:
            cut = _cut_of_run(text, last, encode)
        if cut is not None:
            return cut
    return None


def _cut_between_words(text: str, first: int, encode: Encode) -> _Cut | None:
    """Where words begin in the ``PIECE_CHARACTERS`` from ``first`` on."""
    for place in _PLACES:
        for match in reversed(deque(place.finditer(text, first, first + PIECE_CHARACTERS), _MOST_TRIES)):
            cut = _Cut(*match.span())
            if _agrees(text, cut.end - _LAP, cut, encode):
                return cut
    return None


def _cut_anywhere(text: str, first: int, encode: Encode) -> _Cut | None:
    """Between any two characters, for texts that have no words."""
    last = first + PIECE_CHARACTERS
    for place in range(last, last - _MOST_TRIES, -1):
        for cut in _cuts_at(place, encode):
            if all(_agrees(text, place - lap, cut, encode) for lap in _LAPS):
                return cut
    return None


def _cut_of_run(text: str, last: _Cut, encode: Encode) -> _Cut | None:
    """Where the tokens of a run end, counted from its beginning."""
    for cut in _cuts_at(last.start + _RUN_CHARACTERS, encode):
        if _agrees(text, last.start, cut, encode, last):
            return cut
    return None


def _cuts_at(place: int, encode: Encode) -> Iterator[_Cut]:
    yield _Cut(place, place)
    yield _Cut(place, place, _BEFORE, len(encode(_BEFORE)))


def _agrees(text: str, start: int, cut: _Cut, encode: Encode, last: _Cut | None = None) -> bool:
    """Whether the text from ``start`` on, which may be a piece's beginning, has the tokens of both sides."""
    before, num_before = ("", 0) if last is None else (last.before, last.num_before)
    right = encode(cut.before + text[cut.start : cut.start + _LAP])[cut.num_before :]
    left = encode(before + text[start : cut.end])[num_before:]
    return encode(before + text[start : cut.start + _LAP])[num_before:] == left + right
