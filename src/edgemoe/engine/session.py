"""One running text: prefill in chunks, decode step by step, and the cache of keys and values between.

Letters: T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgemoe.engine.memory import HEAD_ROWS
from edgemoe.errors import RequestError
from edgemoe.models import Decoder, ModelSpec
from edgemoe.native import FloatArray


class Session:
    """Feeds tokens to a decoder. What an earlier text had in common is not computed again."""

    def __init__(
        self, spec: ModelSpec, decoder: Decoder, context: int, kv_format: str, chunk_size: int
    ) -> None:
        self._spec = spec
        self._decoder = decoder
        self._state = spec.new_state(context, kv_format)
        self._chunk_size = chunk_size
        self.token_ids: list[int] = []
        self.num_reused = 0  # tokens that the last prefill did not compute

    @property
    def num_slots(self) -> int:
        """Longest text in tokens."""
        return self._state.num_slots

    def prefill(self, token_ids: Sequence[int]) -> FloatArray:
        """Make the text exactly these tokens; logits (V,) of what comes after the last.

        Raises:
            RequestError: no tokens, an id outside the vocabulary, or more than the context holds.
        """
        self.check(token_ids)
        # The last token is always computed: its logits are wanted.
        self.num_reused = self._rewind(min(common_prefix(self.token_ids, token_ids), len(token_ids) - 1))
        for hidden in self._forward(token_ids[len(self.token_ids) :]):
            last = hidden[-1:]
        logits: FloatArray = self._decoder.head(last)[0]
        return logits

    def step(self, token_id: int) -> FloatArray:
        """Append one token; logits (V,) of what comes after it. Raises RequestError as ``check``."""
        self._check(len(self.token_ids) + 1, [token_id])
        (hidden,) = self._forward([token_id])
        logits: FloatArray = self._decoder.head(hidden)[0]
        return logits

    @property
    def is_full(self) -> bool:
        """Whether no token can be appended."""
        return len(self.token_ids) >= self.num_slots

    def forget(self) -> None:
        """Compute whatever comes next anew."""
        self._rewind(0)

    def logits(self, token_ids: Sequence[int], first: int = 0) -> Iterator[FloatArray]:
        """Logits of a text's positions from ``first`` on, a few rows (T, V) at a time; nothing is reused."""
        yield from self._heads(self.states(token_ids), first)

    def all_logits(
        self, token_ids: Sequence[int], decoder_token_ids: Sequence[int] | None = None
    ) -> Iterator[FloatArray]:
        """Logits of all positions of a text, or where there is an encoder, of the decoder's.

        Raises:
            RequestError: as ``check``; and the decoder's text is missing, or given without an encoder.
        """
        if decoder_token_ids is not None:
            raise RequestError(
                f"{self._spec.family} has no encoder: give all tokens as one text, no decoder_token_ids"
            )
        return self.logits(token_ids)

    def answer_logits(self, context: Sequence[int], answer: Sequence[int]) -> Iterator[FloatArray]:
        """Logits that foretell each token of an answer to a context; a few rows (T, V) at a time."""
        return self.logits([*context, *answer[:-1]], len(context) - 1)

    def split(self, window: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        """A window of text as a context and what is foretold after it: all but the first token."""
        return window[:1], window[1:]

    def num_rows(self, window: Sequence[int]) -> int:
        """How many hidden states ``states`` gives for a window of text."""
        return len(window)

    def head(self, hidden: FloatArray) -> FloatArray:
        """Logits (T, V) of hidden states (T, D), at most HEAD_ROWS of them to stay within the plan."""
        return self._decoder.head(hidden)

    def states(self, token_ids: Sequence[int]) -> Iterator[FloatArray]:
        """Hidden states (T, D) of a text, chunk by chunk; nothing is reused."""
        self.check(token_ids)
        self._rewind(0)
        yield from self._forward(token_ids)

    def _heads(self, states: Iterator[FloatArray], first: int = 0) -> Iterator[FloatArray]:
        """Logits of hidden states from position ``first`` on."""
        for hidden in states:
            position = len(self.token_ids) - len(hidden)
            for start in range(max(0, first - position), len(hidden), HEAD_ROWS):
                yield self._decoder.head(hidden[start : start + HEAD_ROWS])

    def _forward(self, token_ids: Sequence[int]) -> Iterator[FloatArray]:
        """Hidden states chunk by chunk; an interrupted chunk leaves the text as it was."""
        for start in range(0, len(token_ids), self._chunk_size):
            chunk = token_ids[start : start + self._chunk_size]
            hidden = self._decoder.forward(np.asarray(chunk, np.int32), self._state)
            self.token_ids += chunk
            yield hidden

    def _rewind(self, length: int) -> int:
        """Forget the tokens from ``length`` on, and more if the state cannot go back there; what is left."""
        reached = self._state.rewind(length)
        del self.token_ids[reached:]
        return reached

    def check(self, token_ids: Sequence[int]) -> None:
        """Refuse a text that cannot be fed.

        Raises:
            RequestError: no tokens, an id outside the vocabulary, or more than the context holds.
        """
        if not token_ids:
            raise RequestError("the prompt is empty; give at least one token")
        self._check(len(token_ids), token_ids)

    def _check(self, length: int, new: Sequence[int]) -> None:
        """Refuse to have a text of this length, or these tokens in it."""
        if length > self._state.num_slots:
            most = self._spec.max_context
            longer = f", or load with a longer context, up to {most}" if most > self._state.num_slots else ""
            raise RequestError(
                f"{length} tokens do not fit the context of {self._state.num_slots}; shorten the text{longer}"
            )
        wrong = next((t for t in new if not 0 <= t < self._spec.vocab_size), None)
        if wrong is not None:
            raise RequestError(f"token id {wrong} is outside the vocabulary of {self._spec.vocab_size}")


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading tokens two texts share."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
