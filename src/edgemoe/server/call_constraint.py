"""Holds one call of a function to what was declared: its name, and its arguments' schema or grammar."""

from __future__ import annotations

from concurrent.futures import Future

import numpy as np

from edgemoe.errors import RequestError
from edgemoe.server.constraint import THREADS, GrammarConstraint, Mask, Vocabulary
from edgemoe.server.grammar import CallGrammar, Input, tight
from edgemoe.server.input_text import InputText


class InputConstraint:
    """Allows a text of a grammar, as it is or within a JSON string, and then what closes it.

    Where a text as it is could itself go on with what closes it, both are followed until that is whole.
    """

    def __init__(self, vocabulary: Vocabulary, asked: Input) -> None:
        self._vocabulary = vocabulary
        self._closing_grammar = asked.closing
        self._text: InputText | None = vocabulary.input_text(asked.grammar, is_escaped=asked.is_escaped)
        self._closings: list[GrammarConstraint] = []  # those that have begun
        self._fresh = GrammarConstraint(vocabulary, asked.closing)
        self._next: Future[tuple[Mask, bool]] = THREADS.submit(self._text.allowed)

    @property
    def is_over(self) -> bool:
        """Whether the call has ended; known once the mask is."""
        return any(closing.is_over for closing in self._closings)

    def mask(self) -> Mask:
        """Which tokens (V,) may come next.

        Raises:
            RequestError: the grammar has become too complex to go on with.
        """
        masks = [closing.mask() for closing in self._closings]
        if self.is_over:
            return next(mask for mask, each in zip(masks, self._closings, strict=True) if each.is_over)
        if self._text is not None:
            allowed, may_end = self._of_text(self._text)
            masks += [allowed, self._fresh.mask()] if may_end else [allowed]
        mask: Mask = np.logical_or.reduce(masks)
        return mask

    def accept(self, token_id: int) -> None:
        """Take note of a token."""
        closings = [closing for closing in self._closings if closing.mask()[token_id]]
        if self._text is not None:
            allowed, may_end = self._of_text(self._text)
            if may_end and self._fresh.mask()[token_id]:
                closings.append(self._fresh)
                self._fresh = GrammarConstraint(self._vocabulary, self._closing_grammar)
            if allowed[token_id]:
                self._text.accept(token_id)
                self._next = THREADS.submit(self._text.allowed)
            else:
                self._text = None
        for closing in closings:
            closing.accept(token_id)
        self._closings = closings

    def _of_text(self, text: InputText) -> tuple[Mask, bool]:
        """Which tokens the text goes on with, and whether it may end."""
        found = self._next.result()
        if wrong := text.error():
            raise RequestError(f"the input's grammar cannot be kept to: {wrong}")
        return found


class CallConstraint:
    """Allows one call. ``is_over`` and ``has_failed`` are known once the mask is."""

    def __init__(self, vocabulary: Vocabulary, grammar: CallGrammar, begun: str = "") -> None:
        """``begun``: what of the call is already there."""
        self._vocabulary = vocabulary
        self._inputs = grammar.inputs
        self._begun = begun
        self._ids: list[int] = []
        self._stage: GrammarConstraint | InputConstraint = GrammarConstraint(
            vocabulary, grammar.grammar, begun
        )
        self.is_over = False
        self.has_failed = False

    def mask(self) -> Mask:
        """Which tokens (V,) may come next; behind the call, those that end the answer. Errors as of the
        constraints within.
        """
        mask = self._stage.mask()
        if isinstance(self._stage, GrammarConstraint):
            self.has_failed = self._stage.has_failed
            if self._stage.is_over and (asked := self._input()) is not None:
                self._stage = InputConstraint(self._vocabulary, asked)
                mask = self._stage.mask()
        self.is_over = self._stage.is_over
        return mask

    def accept(self, token_id: int) -> None:
        """Take note of a token."""
        if isinstance(self._stage, GrammarConstraint):
            self._ids.append(token_id)
        self._stage.accept(token_id)

    @property
    def text(self) -> str:
        """The call so far, without an input that has a grammar of its own."""
        return self._begun + self._vocabulary.text(self._ids)

    def _input(self) -> Input | None:
        """The input that the text so far stands before."""
        written = tight(self.text) if self._inputs else ""
        return next((asked for asked in self._inputs if written.endswith(asked.before)), None)
