"""The public face: ``load`` a store within a budget, then generate, stream, chat, score.

    with edgemoe.load("qwen.store", memory="2GiB") as model:
        for chunk in model.stream("Once upon a time", max_tokens=64):
            print(chunk.text, end="")

One answer at a time: a Model is used by one thread.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemoe import native
from edgemoe.engine.generation import Chunk, Generation, Request, Stream, collect_logits, current_stats
from edgemoe.engine.loading import Engine, LoadOptions, load_engine
from edgemoe.engine.memory import MemoryPlan
from edgemoe.engine.pairs import Pair, PairScore, score_pairs
from edgemoe.engine.perplexity import Progress, Score, score_text
from edgemoe.engine.sampling import Sampling
from edgemoe.engine.stats import Stats
from edgemoe.errors import RequestError
from edgemoe.experts import DEFAULT_POLICY
from edgemoe.models import KV_FORMATS, ModelSpec
from edgemoe.store import find_device, open_store
from edgemoe.text import Message, Tokenizer
from edgemoe.units import parse_size

__all__ = [
    "Chunk",
    "Generation",
    "Model",
    "Pair",
    "PairScore",
    "Score",
    "Stats",
    "Stream",
    "load",
    "set_num_threads",
]


def load(
    store: str | Path,
    memory: str | int | None = None,
    *,
    context: int | None = None,
    num_threads: int | None = None,
    kv_format: str = "f16",
    cache: str | int | None = None,
    policy: str = DEFAULT_POLICY,
    predictor: str = "auto",
    reader: str = "auto",
    verify: str = "first",
    device: str | None = None,
) -> Model:
    """Load a store so that the whole process stays within ``memory``.

    Args:
        store: folder that ``edgemoe convert`` made.
        memory: cap such as "2GiB", or bytes. Default: what is free, minus a margin.
        context: longest prompt plus answer, in tokens. Default: 4096, or what the model was trained for.
            With an encoder: longest prompt, and longest answer. Default: 512.
        num_threads: threads that compute, of the whole process. Default: one per core.
        kv_format: "f16" or "f32" keys and values.
        cache: cap on the expert cache within the budget. Default: all that the budget leaves.
        policy: which expert leaves the cache: "forecast" ("edgemoe" until `edgemoe fit` has run on the
            store), "edgemoe", "edgemoe-printed", "lfu", "lfru" or "lru".
        predictor: what is read ahead: "none", "gate" by the next layers' routers, or, once `edgemoe fit`
            has run on the store, "table", "gate-fitted" or "hybrid"; "auto" is the best there is.
        reader: "ring" (direct reads by io_uring), "direct" (on worker threads), "buffered", or "auto": the
            first that kernel and file system allow.
        verify: compare experts with their checksums when read "first", "always" or "never".
        device: slow storage down to that of "jetson-tx2-ssd", "jetson-tx2-usb", "rpi4-sd", "nvme" or
            "network".

    Raises:
        NotAStoreError, StoreVersionError, CorruptStoreError: the store cannot be used.
        BudgetError: the budget cannot work; the message names the smallest that can.
        RequestError: an option has no such value.
    """
    if kv_format not in KV_FORMATS:
        raise RequestError(f"no KV format {kv_format!r}; choose one of {', '.join(KV_FORMATS)}")
    if num_threads is not None:
        set_num_threads(num_threads)
    budget_bytes = None if memory is None else parse_size(memory)
    cache_bytes = None if cache is None else parse_size(cache)
    options = LoadOptions(
        budget_bytes=budget_bytes,
        context=context,
        kv_format=kv_format,
        cache_bytes=cache_bytes,
        policy=policy,
        reader=reader,
        verify=verify,
        predictor=predictor,
        device=None if device is None else find_device(device),
    )
    return Model(load_engine(open_store(store), options))


def set_num_threads(num_threads: int) -> None:
    """Compute on so many threads, in the whole process.

    Raises:
        RequestError: none, or so many that they only hold each other up.
    """
    most = max(16, 4 * (os.cpu_count() or 1))
    if not 1 <= num_threads <= most:
        raise RequestError(f"num_threads is {num_threads}; give 1 to {most}, best one for each core")
    native.set_num_threads(num_threads)


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

    def stream(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> Stream:
        """Continue a prompt (text or token ids); iterate over the result to get the text as it comes.

        Args:
            prompt: text, or token ids.
            max_tokens: longest answer.
            temperature: 0 takes the likeliest token each time.
            top_k: draw among the K likeliest; 0: all.
            top_p: draw among the likeliest that hold this share of the probability.
            min_p: leave out tokens less likely than this share of the likeliest.
            repetition_penalty: above 1 makes tokens of prompt and answer less likely to come again.
            seed: the same seed gives the same answer, at any budget.
            stop: end before any of these texts.

        Raises:
            RequestError: an argument has no such value, or the prompt does not fit the context.
        """
        tokenizer = self._open().tokenizer
        token_ids = tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed)
        request = Request(token_ids, max_tokens, sampling, _stops(stop), tokenizer.stop_ids)
        return Stream(self._open(), request)

    def generate(self, prompt: str | Sequence[int], **options: Any) -> Generation:
        """As ``stream``, all at once. Ctrl-C returns what there is, with finish_reason "interrupted"."""
        return _finish(self.stream(prompt, **options))

    def stream_chat(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> Stream:
        """Answer a conversation, a list of {"role": ..., "content": ...}; options as in ``stream``.

        Raises:
            RequestError: the checkpoint has no chat template, or an argument has no such value.
        """
        tokenizer = self._open().tokenizer
        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed)
        stop_ids = tokenizer.stop_ids | tokenizer.turn_end_ids()
        request = Request(tokenizer.encode_chat(messages), max_tokens, sampling, _stops(stop), stop_ids)
        return Stream(self._open(), request)

    def chat(self, messages: Sequence[Message], **options: Any) -> Generation:
        """As ``stream_chat``, all at once."""
        return _finish(self.stream_chat(messages, **options))

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
        answer = None if decoder_token_ids is None else list(decoder_token_ids)
        return collect_logits(self._open(), list(token_ids), answer)

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
        token_ids = engine.tokenizer.encode(text) if isinstance(text, str) else list(text)
        window = window or min(engine.memory.context, max(2, len(token_ids)))
        return score_text(engine.session, token_ids, window, stride or max(1, window // 2), progress)

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
        """Stop reading and release memory. Later calls do nothing."""
        if self._engine is not None:
            self._engine.experts.close()
            self._engine = None

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
        if self._engine is None:
            raise RequestError("the model is closed; load it again")
        return self._engine


def _stops(stop: Sequence[str]) -> Sequence[str]:
    return (stop,) if isinstance(stop, str) else tuple(stop)


def _finish(stream: Stream) -> Generation:
    try:
        for _ in stream:
            pass
    except KeyboardInterrupt:
        stream.close()
    return stream.generation
