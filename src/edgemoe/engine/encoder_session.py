"""A session of a model with an encoder: a prompt is read once as a whole, then its answer is written.

Letters: T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgemoe.engine.memory import MemoryPlan
from edgemoe.engine.session import Session
from edgemoe.errors import RequestError
from edgemoe.models import Decoder, Encoder, ModelSpec
from edgemoe.native import FloatArray


class EncoderDecoderSession(Session):
    """See Session; ``token_ids`` are those of the answer, the start token first.

    Prompt and answer may each be as long as the context. A prompt that equals the last one is not read again.
    """

    def __init__(self, spec: ModelSpec, encoder: Encoder, decoder: Decoder, memory: MemoryPlan) -> None:
        super().__init__(spec, decoder, memory.context, memory.kv_format, memory.chunk_size)
        self._encoder = encoder
        self._prompt: list[int] = []

    def prefill(self, token_ids: Sequence[int]) -> FloatArray:
        """Read a prompt; logits (V,) of the answer's first token. Errors as in Session."""
        self._begin(token_ids)
        return self.step(self._spec.start_token_id)

    def forget(self) -> None:
        """See Session."""
        super().forget()
        self._prompt = []

    def states(self, token_ids: Sequence[int]) -> Iterator[FloatArray]:
        """Hidden states (T, D) of the second half of a text as the answer to the first."""
        context, answer = self.split(token_ids)
        yield from self._decoder_states(context, [self._spec.start_token_id, *answer[:-1]])

    def all_logits(
        self, token_ids: Sequence[int], decoder_token_ids: Sequence[int] | None = None
    ) -> Iterator[FloatArray]:
        """See Session; the decoder's text begins with the start token."""
        if decoder_token_ids is None:
            raise RequestError(
                f"{self._spec.family} has an encoder: give decoder_token_ids, the answer so far, as well"
            )
        return self._heads(self._decoder_states(token_ids, decoder_token_ids))

    def answer_logits(self, context: Sequence[int], answer: Sequence[int]) -> Iterator[FloatArray]:
        """See Session."""
        return self.all_logits(context, [self._spec.start_token_id, *answer[:-1]])

    def split(self, window: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        """A window of text as a prompt and an answer of as many tokens."""
        half = len(window) // 2
        return window[:half], window[half : 2 * half]

    def num_rows(self, window: Sequence[int]) -> int:
        """See Session."""
        return len(window) // 2

    def _decoder_states(self, prompt: Sequence[int], token_ids: Sequence[int]) -> Iterator[FloatArray]:
        self.check(token_ids)
        self.forget()
        self._begin(prompt)
        yield from self._forward(token_ids)

    def _begin(self, prompt: Sequence[int]) -> None:
        """Let the encoder read a prompt, unless it was the last one, and begin an answer anew."""
        self.check(prompt)
        self.num_reused = len(prompt) if list(prompt) == self._prompt else 0
        self._rewind(0)
        if not self.num_reused:
            # An interrupted reading must not pass for a complete one.
            self._prompt = []
            self._decoder.begin(self._encoder.forward(np.asarray(prompt, np.int32)), self._state)
            self._prompt = list(prompt)
