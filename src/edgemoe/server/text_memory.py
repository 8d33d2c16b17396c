"""The tokens of conversations as the model read and wrote them, found by their text.

A text can be cut into tokens in more than one way, and what a model writes is often cut otherwise than its
tokenizer would cut it: where a schema holds nearly always. Read from its text alone, a turn would be other
tokens from there on, and all that follows would be read anew. So a prompt that begins with the text of a
conversation gets that conversation's tokens, up to the last special token that both have in common: the text
between two special tokens is cut without regard to what is around it.
"""

from __future__ import annotations

import re
import threading
from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from edgemoe.engine.holding import common_prefix

MAX_CHARACTERS = 1 << 20  # of prompts and answers together, about four bytes for each with their tokens
TEXT_CHARACTERS = 256  # as so many counts what a text takes beside them, or short ones would have no bound

Encode = Callable[[str], Sequence[int]]


class Written:
    """A prompt and what the model has written to it so far. Used by one thread."""

    def __init__(self, prompt: str, prompt_ids: Sequence[int]) -> None:
        self.prompt = prompt
        self._pieces: list[str] = []
        self._length = 0  # of the answer
        self._ids = array("i", prompt_ids)
        self._num_prompt = len(prompt_ids)
        self._ends = array("i")  # for each token of the answer: how much of its text there was by then

    @property
    def num_tokens(self) -> int:
        """Tokens of the prompt and of the answer so far."""
        return len(self._ids)

    @property
    def num_characters(self) -> int:
        """Length of all text, and what it counts as beside that."""
        return len(self.prompt) + self._length + TEXT_CHARACTERS

    @property
    def answer(self) -> str:
        """All that the model wrote."""
        self.pack()
        return self._pieces[0]

    def pack(self) -> None:
        """Nothing more comes: pieces take many times the memory of the whole."""
        self._pieces = ["".join(self._pieces)]

    def push(self, text: str, token_id: int | None) -> None:
        """A token, and the text that became whole with it; None: text of those before."""
        self._pieces.append(text)
        self._length += len(text)
        if token_id is not None:
            self._ids.append(token_id)
            self._ends.append(self._length)
        elif self._ends:
            self._ends[-1] = self._length

    def ids_up_to(self, length: int) -> Sequence[int] | None:
        """The tokens of so much of the text, not less than the prompt; None if it ends within a token."""
        end = length - len(self.prompt)
        place = bisect_left(self._ends, end) if end else -1
        if place == len(self._ends) or (end and self._ends[place] != end):
            return None
        return self._ids[: self._num_prompt + place + 1]

    def shares(self, text: str) -> int:
        """How much of another text is this one's; 0 if it does not begin with the prompt."""
        if not text.startswith(self.prompt):
            return 0
        start, answer = len(self.prompt), self.answer
        rest = text[start : start + len(answer)]
        return start + (len(rest) if answer == rest else common_prefix(rest, answer))


class TextMemory:
    """Remembers the newest texts of one model within a bound. Any number of threads may use it."""

    def __init__(self, special: Iterable[str]) -> None:
        """``special``: texts that are one token wherever they stand."""
        marks = sorted(filter(None, special), key=len, reverse=True)
        self._marks = re.compile("|".join(map(re.escape, marks))) if marks else None
        self._reach = max(map(len, marks), default=0)
        self._lock = threading.Lock()
        self._texts: OrderedDict[int, Written] = OrderedDict()
        self._num_characters = 0

    def keep(self, written: Written) -> None:
        """Remember a text that is finished; the oldest are forgotten for it."""
        written.pack()
        with self._lock:
            self._texts[id(written)] = written
            self._num_characters += written.num_characters
            while self._num_characters > MAX_CHARACTERS and len(self._texts) > 1:
                _, oldest = self._texts.popitem(last=False)
                self._num_characters -= oldest.num_characters

    def encode(self, text: str, encode: Encode, others: Callable[[], Iterable[Written]] = tuple) -> list[int]:
        """Tokens of a text, those of its beginning as they were. ``encode`` does what is new, ``others`` are
        texts that are looked at when none that is remembered helps.
        """
        with self._lock:
            texts = list(self._texts.values())
        known = self._longest(text, texts) or self._longest(text, others())
        if known is None:
            return list(encode(text))
        length, token_ids = known
        return [*token_ids, *encode(text[length:])]

    def _longest(self, text: str, texts: Iterable[Written]) -> tuple[int, Sequence[int]] | None:
        """The longest beginning whose tokens are known, by its length."""
        found = [(self._last_mark(text, w), w) for w in texts]
        for length, written in sorted(found, key=lambda entry: -entry[0]):
            if length and (token_ids := written.ids_up_to(length)) is not None:
                return length, token_ids
        return None

    def _last_mark(self, text: str, written: Written) -> int:
        """Where the last special token begins in what is common, or behind it; 0 if there is none."""
        shared, least = written.shares(text), len(written.prompt)
        if self._marks is None or not shared:
            return 0
        found = self._marks.finditer(text, least, shared + self._reach)
        return max((mark.start() for mark in found if mark.start() <= shared), default=0)
