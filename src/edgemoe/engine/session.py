"""Texts of one model: opened for answers, scored without one, and one that benchmarks feed by hand.

Letters: T tokens, D width, V vocabulary.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from edgemoe.engine.drafting import Drafts
from edgemoe.engine.memory import HEAD_ROWS
from edgemoe.engine.parking import Parking
from edgemoe.engine.sequence import Machinery, Text
from edgemoe.engine.state_file import open_state
from edgemoe.errors import ContextError, RequestError
from edgemoe.experts import LayerObserver
from edgemoe.models import Decoder, ModelSpec
from edgemoe.native import FloatArray

# Room for so many tokens of an answer is claimed at first. Most answers end before, and what others have read
# can stay: clients that name no length would have all of the context cleared for the title of a conversation.
FIRST_ANSWER = 1024


class Session:
    """Opens texts, any number at once; see Text for what they share.

    ``prefill`` and ``step`` feed one text that belongs to the session: for measurements and tests, by one
    thread at a time. Everything else may be called by any number of threads.
    """

    def __init__(self, spec: ModelSpec, machinery: Machinery) -> None:
        self._spec = spec
        self._machinery = machinery
        self.drawing = threading.Lock()  # the arrays that drawing a token takes are planned for once
        self._text: Text | None = None
        self.drafts: Drafts | None = None  # of the session's own text

    @property
    def num_slots(self) -> int:
        """Longest text in tokens."""
        return self._machinery.pool.context

    @property
    def vocab_size(self) -> int:
        """One more than the largest token id."""
        return self._spec.vocab_size

    @property
    def is_forked(self) -> bool:
        """Whether this process is a child of the one that loaded the model, and cannot use it."""
        return self._machinery.scheduler.is_forked

    def open(self, prompt: Sequence[int], max_tokens: int) -> tuple[Text, list[int]]:
        """A text for an answer of at most so many tokens, and the tokens with which it begins.

        Raises:
            RequestError: as ``check``.
        """
        self.check(prompt)
        room = min(self.num_slots, len(prompt) + max_tokens)
        return Text(self._machinery, room, first_slots=len(prompt) + FIRST_ANSWER), list(prompt)

    def has_room(self, num_tokens: int) -> bool:
        """Whether a text of at most so many tokens could begin at once."""
        return self._machinery.pool.has_room(num_tokens)

    def num_at_once(self, num_tokens: int, num_common: int = 0) -> int:
        """How many answers it pays to ask for at once, with texts of so many tokens; 1 at least.

        ``num_common``: tokens with which all of them begin.
        """
        num_texts = self._machinery.pool.num_texts(num_tokens, num_common)
        return max(1, min(self._machinery.steps.most_answers, num_texts))

    def prefill(self, token_ids: Sequence[int]) -> FloatArray:
        """Make the session's own text exactly these tokens; logits (V,) of what comes after the last.

        What an earlier text had in common is not computed again.

        Raises:
            RequestError: no tokens, an id outside the vocabulary, or more than the context holds.
        """
        self.check(token_ids)
        if self._text is None:
            self._text, _ = self.open(token_ids, self.num_slots)
        return self._text.read(token_ids)

    def step(self, token_id: int) -> FloatArray:
        """Append one token; logits (V,) of what comes after it. Raises RequestError as ``check``."""
        self._check(len(self.token_ids) + 1, [token_id])
        if self._text is None:
            return self.prefill([token_id])
        if self.drafts is not None:
            self._text.follower = self.drafts.observe
            return self.drafts.step(self._text, token_id)
        return self._text.step(token_id)

    @property
    def token_ids(self) -> list[int]:
        """The session's own text."""
        return [] if self._text is None else self._text.token_ids

    @property
    def num_reused(self) -> int:
        """Tokens that the last ``prefill`` did not compute."""
        return 0 if self._text is None else self._text.num_reused

    def forget(self) -> None:
        """Close the text and keep none of its state: what comes next is computed from its first token."""
        if self._text is not None:
            self._text.close(is_kept=False)
            self._text = None
        self._machinery.pool.forget()

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
        """Logits of each token of an answer to a context; a few rows (T, V) at a time."""
        if not answer:
            return iter(())
        return self.logits([*context, *answer[:-1]], len(context) - 1)

    def split(self, window: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        """A window of text as a context and what is predicted after it: all but the first token."""
        return window[:1], window[1:]

    def num_rows(self, window: Sequence[int]) -> int:
        """How many hidden states ``states`` gives for a window of text."""
        return len(window)

    def head(self, hidden: FloatArray) -> FloatArray:
        """Logits (T, V) of hidden states (T, D), at most HEAD_ROWS of them to stay within the plan."""
        with self._machinery.scheduler.turn():
            return self._machinery.decoder.head(hidden)

    def states(self, token_ids: Sequence[int], observer: LayerObserver | None = None) -> Iterator[FloatArray]:
        """Hidden states (T, D) of a text, chunk by chunk; nothing is reused.

        ``observer`` is told of the layers of these steps, and of no others.
        """
        self.check(token_ids)
        yield from self._states(Text(self._machinery, len(token_ids), observer=observer), token_ids)

    def restore(self, path: Path, weights_id: str) -> int:
        """Keep the text of a file that ``Text.save`` wrote, for texts that begin alike; its tokens' number.

        Raises:
            RequestError: it is longer than the context, or the file cannot be read.
            StoreError: it is damaged, or of other weights or another kind of keys and values.
        """
        saved = open_state(path, weights_id, self._machinery.pool.kv_format)
        self.check(saved.prompt or saved.token_ids)
        self._check(len(saved.token_ids), saved.token_ids)
        self._machinery.pool.restore(saved.prompt, saved.token_ids, saved.fill)
        return len(saved.prompt or saved.token_ids)

    def parking(self, folder: Path, max_bytes: int, weights_id: str) -> Parking | None:
        """What parks texts in a folder of so many bytes; None for a model with an encoder, whose prompts are
        read in one step.

        Raises:
            RequestError: the folder cannot be used.
        """
        if self._machinery.encoder is not None:
            return None
        return Parking(self._machinery.pool, folder, max_bytes, weights_id)

    def turn(self) -> AbstractContextManager[None]:
        """Have the model to oneself; raises as ``Scheduler.turn``."""
        return self._machinery.scheduler.turn()

    @property
    def decoder(self) -> Decoder:
        """The decoder that computes. Take a ``turn`` before you use it."""
        return self._machinery.decoder

    def close(self) -> None:
        """Let no step begin any more, and give all states back; waits for the step that is running."""
        self._machinery.scheduler.close()
        self._text = None
        self._machinery.pool.forget()

    def _states(self, text: Text, token_ids: Sequence[int]) -> Iterator[FloatArray]:
        yield from text.states(token_ids)  # if it is left half-way, so is its state
        text.close(is_kept=False)

    def _heads(self, states: Iterator[FloatArray], first: int = 0) -> Iterator[FloatArray]:
        """Logits of hidden states from position ``first`` on."""
        end = 0
        for hidden in states:
            position, end = end, end + len(hidden)
            for start in range(max(0, first - position), len(hidden), HEAD_ROWS):
                yield self.head(hidden[start : start + HEAD_ROWS])

    def check_usable(self) -> None:
        """Raises RequestError where the model is closed, or belongs to the parent of this process."""
        self._machinery.scheduler.check()

    def check(self, token_ids: Sequence[int]) -> None:
        """Refuse a text that cannot be fed.

        Raises:
            RequestError: no tokens, an id outside the vocabulary, or more than the context holds.
        """
        self._machinery.scheduler.check()
        if not len(token_ids):
            raise RequestError("the prompt is empty; give at least one token")
        self._check(len(token_ids), token_ids)

    def _check(self, length: int, new: Sequence[int]) -> None:
        """Refuse to have a text of this length, or these tokens in it."""
        if length > self.num_slots:
            most = self._spec.max_context
            longer = f", or load with a longer context, up to {most}" if most > self.num_slots else ""
            raise ContextError(
                f"{length} tokens do not fit the context of {self.num_slots}; shorten the text{longer}"
            )
        wrong = next((t for t in new if not 0 <= t < self._spec.vocab_size), None)
        if wrong is not None:
            raise RequestError(f"token id {wrong} is outside the vocabulary of {self._spec.vocab_size}")
