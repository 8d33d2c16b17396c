"""Which tokens may come next, so that an answer follows a grammar: llguidance behind the engine's protocol.

The mask of the next token is computed on a thread of its own while the model computes its step.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Protocol

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from edgemoe.api import Constraint
from edgemoe.errors import RequestError
from edgemoe.server.escaped_tokens import EscapedTokens
from edgemoe.server.input_text import EscapedText, InputText, PlainText, trouble
from edgemoe.text.tokenizer import Tokenizer

Mask = NDArray[np.bool_]

_KEPT_MATCHERS = 8  # agents send the same functions with each turn, and large schemas take long to compile
THREADS = ThreadPoolExecutor(2, thread_name_prefix="edgemoe-grammar")


class Vocabulary:
    """A model's tokens as llguidance knows them. Takes about 600 bytes a token."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, stop_ids: frozenset[int]) -> None:
        if not stop_ids:
            raise RequestError("the model has no token that ends an answer, so no schema can be kept to")
        self.stop_ids = stop_ids
        self.size = vocab_size
        self.text = tokenizer.decode_all
        self.tokens = LLTokenizer(tokenizer.to_json(), n_vocab=vocab_size, eos_token=sorted(stop_ids))
        self._matchers: OrderedDict[str, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    @cached_property
    def escaped(self) -> EscapedTokens:
        """The tokens as they read within JSON strings; made when first asked for."""
        return EscapedTokens(self.tokens, self.size)

    def input_text(self, grammar: str, *, is_escaped: bool) -> InputText:
        """What follows a grammar of plain text, in Lark."""
        if is_escaped:
            return EscapedText(self.escaped, grammar)
        return PlainText(self.tokens, within(self.stop_ids, self.size), grammar)

    def check(self, grammar: str) -> str:
        """What is wrong with a grammar; "" if nothing is that can be known before it is followed."""
        wrong = LLMatcher.validate_grammar(grammar, self.tokens)
        if wrong:
            return str(wrong).partition("\n")[0]
        matcher = self.matcher(grammar)
        matcher.compute_logit_bias()  # a definition that stands for itself allows nothing
        return trouble(matcher) if matcher.is_error() else ""

    def matcher(self, grammar: str) -> LLMatcher:
        """A matcher at the grammar's beginning; for any thread."""
        with self._lock:
            kept = self._matchers.get(grammar)
            if kept is None:
                kept = LLMatcher(self.tokens, grammar, log_level=0)
                self._matchers[grammar] = kept
                while len(self._matchers) > _KEPT_MATCHERS:
                    self._matchers.popitem(last=False)
            self._matchers.move_to_end(grammar)
            return kept.deep_copy()


class GrammarConstraint:
    """Allows what a grammar allows. Made for one answer."""

    def __init__(self, vocabulary: Vocabulary, grammar: str, begun: str = "") -> None:
        """``begun``: a text that is already there, which the grammar's beginning is."""
        self._vocabulary = vocabulary
        self._next: Future[Mask] = THREADS.submit(self._begin, grammar, begun)
        self.is_over = False  # known once the mask is: nothing can follow but the answer's end
        self.has_failed = False  # likewise: the grammar cannot be used, or does not begin as the text does

    def mask(self) -> Mask:
        """Which tokens (V,) may come next.

        Raises:
            RequestError: the grammar has become too complex to go on with.
        """
        mask = self._next.result()
        if self._matcher.is_error() and not self.has_failed:
            raise RequestError(f"the schema cannot be kept to: {trouble(self._matcher)}")
        return mask

    def accept(self, token_id: int) -> None:
        """Take note of a token, and begin with the next mask."""
        self._matcher.consume_token(token_id)
        self._next = THREADS.submit(self._compute)

    def _begin(self, grammar: str, begun: str) -> Mask:
        self._matcher = self._vocabulary.matcher(grammar)
        ids = self._vocabulary.tokens.tokenize_str(begun) if begun else []
        self.has_failed = self._matcher.is_error() or self._matcher.try_consume_tokens(ids) < len(ids)
        return self._compute()

    def _compute(self) -> Mask:
        mask: Mask = np.frombuffer(self._matcher.compute_logit_bias(), np.uint8) != 0
        self.is_over = self._matcher.is_stopped()
        return mask


class Calls(Protocol):
    """Holds the calls of an answer in which all else is free."""

    has_called: bool  # whether a call has been opened

    def mask(self) -> Mask | None:
        """Which tokens (V,) may come next; None: all."""

    def accept(self, token_id: int) -> None:
        """Take note of a token."""


class Afterwards:
    """Lets the model think first: a constraint begins to hold where the text so far ends in a pattern."""

    def __init__(
        self,
        inner: Constraint,
        tokenizer: Tokenizer,
        vocabulary: Vocabulary,
        begins: re.Pattern[str],
        calls: Calls | None = None,
    ) -> None:
        """``calls``: the model may call functions instead, from within its thought."""
        self._inner = inner
        self._calls = calls
        self._tokenizer = tokenizer
        self._begins = begins
        self._ids: list[int] = []
        self._holds = False
        self._free = np.ones(vocabulary.size, bool)
        self._free[within(vocabulary.stop_ids, vocabulary.size)] = False  # a thought alone is no answer

    def mask(self) -> Mask | None:
        """Which tokens (V,) may come next: before the constraint holds, all that do not end the answer."""
        if self._holds:
            return self._inner.mask()
        if self._calls is None:
            return self._free
        held = self._calls.mask()
        return self._free if held is None and not self._calls.has_called else held

    def accept(self, token_id: int) -> None:
        """Take note of a token."""
        if self._holds:
            self._inner.accept(token_id)
            return
        if self._calls is not None:
            self._calls.accept(token_id)
            if self._calls.has_called:
                return
        self._ids = [*self._ids[-31:], token_id]  # as long as any mark
        self._holds = self._begins.search(self._tokenizer.decode_all(self._ids)) is not None


def within(ids: frozenset[int], size: int) -> Sequence[int]:
    """The ids that a vocabulary of this size has."""
    return [token_id for token_id in sorted(ids) if token_id < size]
