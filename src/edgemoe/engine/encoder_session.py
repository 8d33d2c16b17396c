"""Texts of a model with an encoder: a prompt is read once as a whole, then its answer is written.

Letters: T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgemoe.engine.sequence import Text
from edgemoe.engine.session import Session
from edgemoe.errors import RequestError
from edgemoe.experts import LayerObserver
from edgemoe.native import FloatArray


class EncoderDecoderSession(Session):
    """See Session; a text's ``token_ids`` are those of the answer, the start token first.

    Prompt and answer may each be as long as the context. A prompt that an earlier text had is not read again.
    """

    def open(self, prompt: Sequence[int], max_tokens: int) -> tuple[Text, list[int]]:
        """See Session."""
        self.check(prompt)
        return self._answer(prompt, 1 + max_tokens), [self._spec.start_token_id]

    def prefill(self, token_ids: Sequence[int]) -> FloatArray:
        """Read a prompt; logits (V,) of the answer's first token. Errors as in Session."""
        if self._text is not None:
            self._text.close()
        self._text, first = self.open(token_ids, self.num_slots)
        return self._text.read(first)

    def step(self, token_id: int) -> FloatArray:
        """See Session; the session's own text has begun with ``prefill``."""
        if self._text is None:
            raise RequestError("there is no prompt yet: prefill comes before the first step")
        return super().step(token_id)

    def states(self, token_ids: Sequence[int], observer: LayerObserver | None = None) -> Iterator[FloatArray]:
        """Hidden states (T, D) of the second half of a text as the answer to the first."""
        context, answer = self.split(token_ids)
        return self._decoder_states(context, [self._spec.start_token_id, *answer[:-1]], observer)

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

    def _decoder_states(
        self, prompt: Sequence[int], token_ids: Sequence[int], observer: LayerObserver | None = None
    ) -> Iterator[FloatArray]:
        self.check(token_ids)
        self.check(prompt)
        yield from self._states(self._answer(prompt, len(token_ids), observer), token_ids)

    def _answer(self, prompt: Sequence[int], num_tokens: int, observer: LayerObserver | None = None) -> Text:
        """A text of so many tokens; keys and values of the prompt take as many slots as it has tokens."""
        room = min(self.num_slots, max(len(prompt), num_tokens))
        return Text(self._machinery, room, prompt, observer)
