"""From logits to the text of an answer: sampling tokens, decoding them, noticing the end. V: vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

from edgemoe.engine.answer import Request
from edgemoe.engine.loading import Engine
from edgemoe.engine.sampling import TokenLogprob, sample, token_logprob
from edgemoe.native import FloatArray
from edgemoe.text import StopScanner, StreamDecoder


class Writer:
    """What an answer is so far: its tokens, their text, and what is known of how likely they were."""

    def __init__(self, engine: Engine, request: Request) -> None:
        self._request = request
        self._suppressed = engine.suppressed
        self._generator = request.sampling.generator()
        self._scanner = StopScanner(request.stop)
        self._decoder: StreamDecoder | None = None
        if request.has_text and engine.tokenizer.is_available:
            # An encoder reads the prompt; the answer then follows nothing.
            before = () if engine.spec.has_encoder else request.token_ids
            self._decoder = StreamDecoder(engine.tokenizer, before, request.stop)
        self.text: list[str] = []
        self.token_ids: list[int] = []
        self.logprobs: list[TokenLogprob] = []

    def write(self, logits: FloatArray, context: Sequence[int], is_full: bool) -> tuple[str, str | None]:
        """Draw a token from logits (V,): the text that it completes, and why the answer ends, if it does."""
        request = self._request
        mask = None if request.constraint is None else request.constraint.mask()
        allowed = self._suppressed.without(logits, is_first=not self.token_ids)
        token_id = sample(allowed, request.sampling, self._generator, context, self.token_ids, mask)
        self.token_ids.append(token_id)
        if request.logprobs is not None:
            self.logprobs.append(token_logprob(logits, token_id, request.logprobs))
        is_end = token_id in request.stop_ids
        if request.constraint is not None and not is_end:
            request.constraint.accept(token_id)
        reason = self._reason(token_id, is_end, is_full)
        text = self._shown(token_id, is_end)
        if self._scanner.is_stopped:
            reason = "stop"
        elif reason is not None and self._decoder is not None:
            text += self._scanner.push(self._decoder.flush()) + self._scanner.flush()
        self.text.append(text)
        return text, reason

    def _shown(self, token_id: int, is_end: bool) -> str:
        if self._decoder is None or is_end:
            return ""
        return self._scanner.push(self._decoder.push(token_id))

    def _reason(self, token_id: int, is_end: bool, is_full: bool) -> str | None:
        if is_end:
            return "stop"
        return "length" if is_full or len(self.token_ids) >= self._request.max_tokens else None
