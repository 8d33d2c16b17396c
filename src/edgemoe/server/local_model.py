"""A loaded model as the server sees it: prompts in, tokens with their text out, one thread per answer.

Everything the server asks of the engine goes through this file.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

from edgemoe.api import Constraint, Generation, Model, Stream, TokenLogprob
from edgemoe.engine.parking import Parking
from edgemoe.engine.requests import make_request
from edgemoe.engine.sampling import token_logprob
from edgemoe.experts import LayerObserver
from edgemoe.server.constraint import Vocabulary
from edgemoe.server.dialects import Dialect
from edgemoe.server.events import TokenChance
from edgemoe.server.held_calls import CallWatch
from edgemoe.server.text_memory import TextMemory, Written
from edgemoe.text.stream import StreamDecoder
from edgemoe.text.tokenizer import Tokenizer

_COUNTED_CONTEXTS = 8  # prompts of more than these are refused without knowing their exact length


@dataclass(frozen=True)
class Token:
    """One token of an answer and the text that became whole with it."""

    text: str
    token_id: int | None  # None: text that was held back until no token could change it
    chance: TokenChance | None = None
    at_s: float = 0.0  # when it was drawn, by time.monotonic
    left_out: str = ""  # what the token is, where that is no text for clients


@dataclass(frozen=True)
class Reading:
    """So many of the prompt's tokens are read."""

    done: int
    total: int


@dataclass(frozen=True)
class End:
    """The answer ended: "stop", "length" or "cancelled"; what it cost, or the error that ended it.

    ``by_token``: it ended with a token that is no text, and that nobody was told of.
    """

    reason: str
    num_cached: int = 0
    timings: Mapping[str, Any] = field(default_factory=dict)
    error: BaseException | None = None
    by_token: bool = False


@dataclass(frozen=True)
class Scored:
    """The prompt, token by token, with how likely the model held each."""

    chances: Sequence[TokenChance]


Piece = Token | Reading | Scored | End
Emit = Callable[[Piece], None]


@dataclass(frozen=True)
class Job:
    """What the engine is to do for one answer."""

    token_ids: Sequence[int]
    max_tokens: int
    draw: Mapping[str, Any]
    stop_ids: frozenset[int]
    num_top_logprobs: int | None = None
    constraint: Constraint | None = None
    scores_prompt: bool = False
    only_scores: bool = False
    only_reads: bool = False  # the answer's one token is drawn and not told
    stops: Sequence[str] = ()  # texts that end the answer: they are told as soon as they are there
    hidden_ids: frozenset[int] = frozenset()  # special tokens whose texts are not told


class Cancel:
    """Ends an answer before its next step, from any thread and at any time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stream: Stream | None = None
        self.is_set = False

    def set(self) -> None:
        """End it, or never begin it."""
        with self._lock:
            self.is_set = True
            if self._stream is not None:
                self._stream.cancel()

    def attach(self, stream: Stream) -> None:
        """Say what there is to end."""
        with self._lock:
            self._stream = stream
            if self.is_set:
                stream.cancel()

    def detach(self) -> None:
        """There is nothing left to end."""
        with self._lock:
            self._stream = None


class LocalModel:
    """A model that is in memory under the name that clients know it by."""

    def __init__(self, name: str, model: Model, parking: Parking | None = None) -> None:
        """``parking``: keeps texts on disk whose room in memory is needed."""
        self.name = name
        self.model = model
        self.parking = parking
        self.turn_end_ids = model.tokenizer.turn_end_ids() if model.tokenizer.is_available else frozenset()
        self.template = "\n".join(model.tokenizer.chat_templates().values())
        self._special_ids = model.tokenizer.special_ids()
        self.texts = TextMemory(self._special_ids)
        self._lock = threading.Lock()
        self._call_watch: CallWatch | None = None

    @property
    def context(self) -> int:
        """Longest prompt and answer together, in tokens."""
        return self.model.memory.context

    @property
    def most_counted(self) -> int:
        """A prompt of more tokens is not tokenised to its end, and its tokens are not counted further."""
        return _COUNTED_CONTEXTS * self.context

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer in a conversation."""
        return self.model.tokenizer.stop_ids | self.turn_end_ids

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(self.model.tokenizer, self.model.spec.vocab_size, self.stop_ids)

    def vocabulary(self) -> Vocabulary:
        """The tokens as grammars need them; made when first asked for, which may take a second."""
        with self._lock:
            return self._vocabulary

    def hidden_ids(self, shown: Sequence[str]) -> frozenset[int]:
        """Tokens that clients do not see: unused and special ones, but for parts of a text of ``shown``."""
        return self.model.tokenizer.unused_ids | frozenset(
            token_id
            for text, token_id in self._special_ids.items()
            if not self.model.tokenizer.shows(token_id) and not any(text in each for each in shown)
        )

    def call_watch(self, dialect: Dialect) -> CallWatch:
        """Finds calls of functions in what the model writes."""
        with self._lock:
            if self._call_watch is None:
                self._call_watch = CallWatch(dialect, self.model.tokenizer)
            return self._call_watch

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        options: Mapping[str, Any],
    ) -> str:
        """The conversation as the chat template writes it, up to where the answer begins.

        Raises:
            RequestError: there is no template, or it refuses the conversation.
        """
        return self.model.tokenizer.render_chat(messages, tools, None, **options)

    def encode(self, text: str) -> list[int]:
        """Tokens of a rendered conversation: as they were where the model has read or written it."""

        @cache
        def encode(rest: str) -> list[int]:
            return self.model.tokenizer.encode(rest, adds_special=False, most=self.most_counted)

        def parked() -> Iterable[Written]:
            for token_ids in self.parking.alike(encode(text)) if self.parking else ():
                yield Written(self.model.tokenizer.decode_all(token_ids), token_ids)

        return self.texts.encode(text, encode, parked)

    def close(self) -> None:
        """Park what can be parked, and free the memory."""
        if self.parking is not None:
            self.parking.write()
        self.model.close()

    def run(self, job: Job, emit: Emit, cancel: Cancel, observer: LayerObserver | None) -> None:
        """Write one answer, in the calling thread. The last piece is an ``End``, whatever happens."""
        try:
            emit(self._run(job, emit, cancel, observer))
        except BaseException as error:
            emit(End("error", error=error))

    def _run(self, job: Job, emit: Emit, cancel: Cancel, observer: LayerObserver | None) -> End:
        if job.scores_prompt:
            emit(Scored(self._score(job.token_ids, job.num_top_logprobs or 0, cancel)))
        if job.only_scores or cancel.is_set:
            return End("stop")
        if self.parking is not None:
            room = len(job.token_ids) + job.max_tokens
            self.parking.fetch(job.token_ids, room, lambda: cancel.is_set)
        decoder = StreamDecoder(_Marked(self.model.tokenizer, job.hidden_ids), job.token_ids, job.stops)
        with self._stream(job, lambda done, total: emit(Reading(done, total))) as stream:
            stream.observer = observer
            cancel.attach(stream)
            try:
                reason = self._write(stream, job, decoder, _untold if job.only_reads else emit)
            finally:
                cancel.detach()  # the stream refers to whoever cancels it, by what it tells of its progress
        generation, by_token = stream.generation, reason is not None
        if job.only_reads:
            reason, by_token = "length", False
        elif rest := decoder.flush():
            emit(Token(rest, None, at_s=time.monotonic()))
        reason = reason or generation.finish_reason
        return End(reason, generation.num_cached_tokens, _timings(generation), by_token=by_token)

    def _stream(self, job: Job, progress: Callable[[int, int], None]) -> Stream:
        """The engine's answer, without its text: what the server shows has special tokens in it."""
        engine = self.model.engine
        options = {
            "max_tokens": job.max_tokens,
            "logprobs": job.num_top_logprobs,
            "constraint": job.constraint,
            "progress": progress,
        }
        request = make_request(job.token_ids, job.stop_ids, {**engine.sampling, **job.draw, **options})
        return Stream(engine, replace(request, has_text=False))

    def _write(self, stream: Stream, job: Job, decoder: StreamDecoder, emit: Emit) -> str | None:
        """Emit tokens as they come; "stop" when one of them ends a turn."""
        for chunk in stream:
            (token_id,) = chunk.token_ids
            if token_id in job.stop_ids:
                return "stop"
            chance = self._chance(chunk.logprobs[0]) if chunk.logprobs else None
            left_out = self.model.tokenizer.decode_all([token_id]) if token_id in job.hidden_ids else ""
            emit(Token(decoder.push(token_id), token_id, chance, time.monotonic(), left_out))
        return None

    def _score(self, token_ids: Sequence[int], num_top: int, cancel: Cancel) -> Sequence[TokenChance]:
        """How likely the model holds each token of a text; a few rows of logits at a time."""
        first = _Marked(self.model.tokenizer, frozenset()).decode_shown(
            token_ids[:1]
        )  # maybe without a space before it
        chances = [TokenChance(first.encode(), None)]
        rows = (row for block in self.model.engine.session.all_logits(token_ids) for row in block)
        for row, token_id in zip(rows, token_ids[1:], strict=False):
            if cancel.is_set:
                break
            chances.append(self._chance(token_logprob(row, token_id, num_top)))
        return chances

    def _chance(self, logprob: TokenLogprob) -> TokenChance:
        written = self.model.tokenizer.bytes_of
        top = tuple((written(token_id), value) for token_id, value in logprob.top)
        return TokenChance(written(logprob.token_id), logprob.logprob, top)


def _untold(_: Piece) -> None:
    """Where a token goes that nobody asked for."""


class _Marked:
    """A tokenizer that writes special tokens out, by which models mark thoughts and calls of functions; but
    for those that are hidden.
    """

    def __init__(self, tokenizer: Tokenizer, hidden_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._hidden_ids = hidden_ids
        self.reach = tokenizer.reach

    def decode_shown(self, token_ids: Sequence[int]) -> str:
        """Text of the tokens."""
        return self._tokenizer.decode_shown(token_ids) if self._tokenizer.is_available else ""

    def shows(self, token_id: int) -> bool:
        """Whether a token is text."""
        return token_id not in self._hidden_ids


def _timings(generation: Generation) -> dict[str, Any]:
    """What an answer cost, by the names of llama.cpp's server where it has one."""
    predicted = len(generation.token_ids)
    rate = generation.decode_tokens_per_s
    return {
        "cache_n": generation.num_cached_tokens,
        "prompt_n": generation.num_prompt_tokens - generation.num_cached_tokens,
        "prompt_ms": round(generation.time_to_first_token_s * 1000, 3),
        "prompt_per_second": round(generation.prefill_tokens_per_s, 3),
        "predicted_n": predicted,
        "predicted_ms": round((predicted - 1) / rate * 1000, 3) if rate else 0.0,
        "predicted_per_second": round(rate, 3),
        "draft_n": generation.num_drafted,
        "draft_n_accepted": generation.num_accepted,
        "expert_hits": generation.expert_hits,
        "expert_misses": generation.expert_misses,
        "bytes_read": generation.bytes_read,
        "wasted_bytes": generation.wasted_bytes,
        "waited_ms": round(generation.waited_s * 1000, 3),
    }
