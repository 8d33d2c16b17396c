"""A loaded model: what it answers, what it says of texts, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from edgemoe import arguments
from edgemoe.api.many import checked_prompts, options_of_each, refuse_constraint, write_each, write_of_one
from edgemoe.engine.answer import Generation
from edgemoe.engine.async_stream import AsyncStream
from edgemoe.engine.generation import Stream, collect_logits, current_stats
from edgemoe.engine.loading import Engine
from edgemoe.engine.memory import MemoryPlan
from edgemoe.engine.pairs import Pair, PairScore, score_pairs
from edgemoe.engine.perplexity import Score, score_text
from edgemoe.engine.prompts import read_chat, read_prompt
from edgemoe.engine.requests import AnswerOptions, make_request
from edgemoe.engine.stats import Stats
from edgemoe.errors import RequestError
from edgemoe.models import ModelSpec
from edgemoe.progress import Progress
from edgemoe.text import Message, Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Model:
    """A loaded model; make one with ``load`` and close it, best by ``with``."""

    def __init__(self, engine: Engine) -> None:
        self._engine: Engine | None = engine

    @property
    def spec(self) -> ModelSpec:
        """What the model is made of."""
        return self._open().spec

    @property
    def memory(self) -> MemoryPlan:
        """Where every byte of the budget goes."""
        return self._open().memory

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to tokens and back."""
        return self._open().tokenizer

    @property
    def sampling_defaults(self) -> dict[str, float]:
        """Sampling settings that the model's authors recommend in generation_config.json; the default."""
        return dict(self._open().sampling)

    def stream(self, prompt: str | Sequence[int], **options: Unpack[AnswerOptions]) -> Stream:
        """Continue a prompt (text or token ids); iterate over the result to get the text as it comes.

        Any number of streams may be open at once, in one thread or in many.

        Args:
            prompt: text, or token ids.
            options: by name, none of them required:

                * max_tokens: the most tokens of the answer. Default: 256.
                * temperature: randomness; 0 takes the most likely token each time. This and the next four
                  default to what the model's authors recommend (``sampling_defaults``), else to taking the
                  most likely token.
                * top_k: draw from the K most likely tokens; 0: from all.
                * top_p: draw from the most likely tokens that together have this probability.
                * min_p: leave out tokens less likely than this share of the most likely one.
                * repetition_penalty: above 1, tokens of prompt and answer become less likely.
                * presence_penalty, frequency_penalty: subtracted from the logits of tokens that the answer
                  already has: once, and once for each time that it has them.
                * logit_bias: {token id: number} added to logits.
                * seed: the same seed gives the same answer, at any budget, whatever else is running.
                * stop: a text, or several; the answer ends before the first of them.
                * logprobs: report how likely each token was, and this many of the most likely ones.
                * constraint: says which tokens may come next; see ``edgemoe.engine.sampling.Constraint``.
                * progress: called with (tokens done, total) while the prompt is read.

        Raises:
            RequestError: an option has no such name or value, or the prompt does not fit the context.
        """
        engine = self._open()
        tokenizer = engine.tokenizer
        token_ids = read_prompt(engine, prompt)
        return Stream(engine, make_request(token_ids, tokenizer.stop_ids, options, engine.sampling))

    def astream(self, prompt: str | Sequence[int], **options: Unpack[AnswerOptions]) -> AsyncStream:
        """As ``stream``, for ``async for``: computed on a worker thread, a step at a time."""
        return AsyncStream(self.stream(prompt, **options))

    def generate(self, prompt: str | Sequence[int], **options: Unpack[AnswerOptions]) -> Generation:
        """As ``stream``, all at once. Ctrl-C returns the answer so far, with finish_reason "interrupted"."""
        return _finish(self.stream(prompt, **options))

    def generate_n(
        self, prompt: str | Sequence[int], n: int, **options: Unpack[AnswerOptions]
    ) -> list[Generation]:
        """``n`` answers to one prompt, which is read once; options as in ``stream``.

        With a seed, answer number i (from 0) is the one that ``seed + i`` gives.

        Raises:
            RequestError: as ``stream``; fewer than one answer, or a constraint, which serves one answer only.
        """
        streams = [self.stream(prompt, **own) for own in options_of_each(n, options)]
        return write_of_one(self._open().session, streams)

    def generate_many(
        self,
        prompts: Sequence[str | Sequence[int]],
        *,
        on_answer: Progress | None = None,
        **options: Unpack[AnswerOptions],
    ) -> list[Generation]:
        """Answers to many prompts, in their order; options as in ``stream``, for each.

        ``on_answer(done, total)`` is called after each answer. All prompts are checked before one is read.

        Raises:
            RequestError: as ``stream``; or a constraint, which serves one answer only.
        """
        refuse_constraint(options)
        streams = [self.stream(prompt, **options) for prompt in checked_prompts(prompts)]
        return write_each(self._open().session, streams, on_answer)

    def stream_chat(
        self,
        messages: Sequence[Message],
        *,
        template_options: Mapping[str, Any] | None = None,
        **options: Unpack[AnswerOptions],
    ) -> Stream:
        """Answer a conversation, a list of {"role": ..., "content": ...}; options as in ``stream``.

        ``template_options`` are for the chat template, such as {"enable_thinking": False}.

        Raises:
            RequestError: the checkpoint has no chat template, or an option has no such name or value.
        """
        engine = self._open()
        tokenizer = engine.tokenizer
        stop_ids = tokenizer.stop_ids | tokenizer.turn_end_ids()
        token_ids = read_chat(engine, messages, arguments.template_options(template_options))
        return Stream(engine, make_request(token_ids, stop_ids, options, engine.sampling))

    def astream_chat(
        self,
        messages: Sequence[Message],
        *,
        template_options: Mapping[str, Any] | None = None,
        **options: Unpack[AnswerOptions],
    ) -> AsyncStream:
        """As ``stream_chat``, for ``async for``."""
        return AsyncStream(self.stream_chat(messages, template_options=template_options, **options))

    def chat(
        self,
        messages: Sequence[Message],
        *,
        template_options: Mapping[str, Any] | None = None,
        **options: Unpack[AnswerOptions],
    ) -> Generation:
        """As ``stream_chat``, all at once."""
        return _finish(self.stream_chat(messages, template_options=template_options, **options))

    def save_state(self, path: str | Path, prompt: str | Sequence[int]) -> None:
        """Read a prompt, unless that has been done, and write what came of it to a file.

        ``load_state`` gives it back to a model of the same store, in another process too: answers to prompts
        that begin so need not read it again.

        Raises:
            RequestError: the prompt does not fit the context, or the file cannot be written.
        """
        engine = self._open()
        token_ids = read_prompt(engine, prompt)
        text, begins_with = engine.session.open(token_ids, 1)
        try:
            text.save(Path(path), begins_with, engine.weights_id)
        finally:  # who keeps the error would keep the text, and its room
            text.close()

    def load_state(self, path: str | Path) -> int:
        """Take in what ``save_state`` wrote; how many tokens need not be read again.

        It is kept like the state of an answer that has ended: until its room is needed.

        Raises:
            RequestError: the file cannot be read, or its text is longer than the context.
            StoreError: it is damaged, or was made with another store or another ``kv_format``.
        """
        engine = self._open()
        return engine.session.restore(Path(path), engine.weights_id)

    def logits(
        self, token_ids: Sequence[int], decoder_token_ids: Sequence[int] | None = None
    ) -> NDArray[np.float32]:
        """Logits (T, V) of every position of a text; the result is not counted in the budget.

        A model with an encoder reads ``token_ids`` with it and gives the logits of ``decoder_token_ids``,
        which begin with its start token (``spec.start_token_id``).

        Raises:
            RequestError: the text is empty, too long, or has ids outside the vocabulary; or the model has
                an encoder and only one text is given, or none and two are.
        """
        engine = self._open()
        answer = None if decoder_token_ids is None else arguments.token_ids("the answer", decoder_token_ids)
        return collect_logits(engine, arguments.token_ids("the text", token_ids), answer)

    def perplexity(
        self,
        text: str | Sequence[int],
        *,
        window: int | None = None,
        stride: int | None = None,
        progress: Progress | None = None,
    ) -> Score:
        """Score a text by a sliding window; ``progress(done, total)`` counts tokens.

        ``window`` defaults to the context, ``stride`` to half of the window.

        Raises:
            RequestError: the text is too short, or window and stride do not fit.
        """
        engine = self._open()
        if isinstance(text, str):
            token_ids = engine.tokenizer.encode(text)
        else:
            token_ids = arguments.token_ids("the text", text)
        most = min(engine.memory.context, max(2, len(token_ids)))
        window = most if window is None else arguments.whole("window", window, 2)
        stride = max(1, window // 2) if stride is None else arguments.whole("stride", stride, 1)
        return score_text(engine.session, token_ids, window, stride, progress)

    def score_pairs(
        self, pairs: Sequence[Pair], *, max_tokens: int = 128, progress: Progress | None = None
    ) -> PairScore:
        """Answer prompts whose answers are known: Rouge-2 and perplexity; ``progress`` counts pairs.

        Raises:
            RequestError: rouge-score is not installed, or the context has no room for prompt and answer.
        """
        return score_pairs(self._open(), pairs, max_tokens, progress)

    def stats(self) -> Stats:
        """Counts since loading, and memory now."""
        return current_stats(self._open())

    def close(self) -> None:
        """End every answer, stop reading and release memory; from any thread. Later calls do nothing.

        Answers under way in other threads end with a RequestError after their step.
        """
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def __reduce__(self) -> NoReturn:
        """Neither copied nor sent to another process: memory, threads and files are this one's."""
        raise RequestError("a model cannot be copied or pickled; load the store in the process that needs it")

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def engine(self) -> Engine:
        """The parts that run the model, for calibration and measurement."""
        return self._open()

    def _open(self) -> Engine:
        engine = self._engine
        if engine is None:
            raise RequestError("the model is closed; load it again")
        engine.session.check_usable()
        return engine


def _finish(stream: Stream) -> Generation:
    with stream:
        try:
            for _ in stream:
                pass
        except KeyboardInterrupt:
            pass
        return stream.generation
