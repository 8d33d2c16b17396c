"""Which tokens may come next, so that an answer follows a grammar: llguidance behind the engine's protocol.

The mask of the next token is computed on a thread of its own while the model computes its step.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from edgemoe.api import Constraint
from edgemoe.errors import RequestError
from edgemoe.text.tokenizer import Tokenizer

Mask = NDArray[np.bool_]

_THREADS = ThreadPoolExecutor(2, thread_name_prefix="edgemoe-grammar")


class Vocabulary:
    """A model's tokens as llguidance knows them. Takes about as much memory as tokenizer.json has bytes."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, stop_ids: frozenset[int]) -> None:
        if not stop_ids:
            raise RequestError("the model has no token that ends an answer, so no schema can be kept to")
        self.stop_ids = stop_ids
        self.size = vocab_size
        self.tokens = LLTokenizer(tokenizer.to_json(), n_vocab=vocab_size, eos_token=sorted(stop_ids))

    def check(self, grammar: str) -> str:
        """What is wrong with a grammar; "" if nothing is."""
        return LLMatcher.validate_grammar(grammar, self.tokens)


class GrammarConstraint:
    """Allows what a grammar allows. Made for one answer."""

    def __init__(self, vocabulary: Vocabulary, grammar: str) -> None:
        self._vocabulary = vocabulary
        self._matcher = LLMatcher(vocabulary.tokens, grammar)
        self._next: Future[Mask] = _THREADS.submit(self._compute)

    def mask(self) -> Mask:
        """Which tokens (V,) may come next.

        Raises:
            RequestError: the grammar has become too complex to go on with.
        """
        mask = self._next.result()
        if self._matcher.is_error():
            raise RequestError(f"the schema cannot be kept to: {self._matcher.get_error()}")
        return mask

    def accept(self, token_id: int) -> None:
        """Take note of a token, and begin with the next mask."""
        self._matcher.consume_token(token_id)
        self._next = _THREADS.submit(self._compute)

    def _compute(self) -> Mask:
        mask: Mask = np.frombuffer(self._matcher.compute_logit_bias(), np.uint8) != 0
        return mask


class Afterwards:
    """Lets the model think first: a constraint begins to hold where the text so far ends in a pattern."""

    def __init__(
        self, inner: Constraint, tokenizer: Tokenizer, vocabulary: Vocabulary, begins: re.Pattern[str]
    ) -> None:
        self._inner = inner
        self._tokenizer = tokenizer
        self._begins = begins
        self._ids: list[int] = []
        self._holds = False
        self._free = np.ones(vocabulary.size, bool)
        self._free[_within(vocabulary.stop_ids, vocabulary.size)] = False  # a thought alone is no answer

    def mask(self) -> Mask:
        """Which tokens (V,) may come next: before the constraint holds, all that do not end the answer."""
        return self._inner.mask() if self._holds else self._free

    def accept(self, token_id: int) -> None:
        """Take note of a token."""
        if self._holds:
            self._inner.accept(token_id)
            return
        self._ids = [*self._ids[-31:], token_id]  # as long as any mark
        self._holds = self._begins.search(self._tokenizer.decode_all(self._ids)) is not None


def _within(ids: frozenset[int], size: int) -> Sequence[int]:
    return [token_id for token_id in sorted(ids) if token_id < size]
