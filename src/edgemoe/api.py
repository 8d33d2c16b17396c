"""The public face: ``load`` a store within a budget, then generate, stream, chat, score.

    with edgemoe.load("qwen.store", memory="2GiB") as model:
        for chunk in model.stream("Once upon a time", max_tokens=64):
            print(chunk.text, end="")

Any number of threads may use one Model, each with as many answers under way as it likes: their steps take
turns, and what an answer says does not depend on what else is going on. ``async for`` works as well:

    async for chunk in model.astream("Once upon a time"):
        print(chunk.text, end="")
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemoe import arguments, native
from edgemoe.engine.answer import Chunk, Generation
from edgemoe.engine.async_stream import AsyncStream
from edgemoe.engine.drafting import DRAFTS, STORE
from edgemoe.engine.generation import Stream, collect_logits, current_stats
from edgemoe.engine.loading import Engine, LoadOptions, load_engine
from edgemoe.engine.memory import MemoryPlan
from edgemoe.engine.pairs import Pair, PairScore, score_pairs
from edgemoe.engine.perplexity import Progress, Score, score_text
from edgemoe.engine.prompts import read_chat, read_prompt
from edgemoe.engine.requests import AnswerOptions, make_request
from edgemoe.engine.sampling import Constraint, Sampling, TokenLogprob
from edgemoe.engine.stats import Stats
from edgemoe.engine.together import write_all
from edgemoe.errors import NotAStoreError, RequestError
from edgemoe.experts import DEFAULT_POLICY
from edgemoe.models import KV_FORMATS, ModelSpec
from edgemoe.store import Store, find_device, open_store
from edgemoe.text import Message, Tokenizer
from edgemoe.units import parse_size

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "AnswerOptions",
    "AsyncStream",
    "Chunk",
    "Constraint",
    "Generation",
    "Model",
    "Pair",
    "PairScore",
    "Sampling",
    "Score",
    "Stats",
    "Stream",
    "TokenLogprob",
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
    verify: str = "always",
    device: str | None = None,
    num_texts: int = 1,
    tier: str | int | None = None,
    draft: str | Path = "none",
) -> Model:
    """Load a store so that the whole process stays within ``memory``.

    Args:
        store: folder that ``edgemoe convert`` made, the URL of one, such as "s3://bucket/store", or a GGUF
            file, which is run as it is.
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
        verify: compare experts with their checksums "always" when they are read, the "first" time, or
            "never".
        device: slow storage down to that of "jetson-tx2-ssd", "jetson-tx2-usb", "rpi4-sd", "nvme" or
            "network".
        num_texts: whole contexts to keep room for. Texts share that room: short ones are many, and what an
            ended one has computed is kept for others that begin alike. A text that finds none waits.
        tier: of a store at a URL, how much of this disk experts may take that were read; 0: none. Default:
            as much as they all take, or a quarter of what is free.
        draft: where guesses at the next tokens come from, which one step computes together: "text" takes
            what followed where the text's end stood before, "mtp" what the store's layer for further tokens
            predicts, "none" makes none. "auto" is "mtp" where there is such a layer and memory for it and all
            experts, else "text" where the model allows it. Or a small store with the same tokens, as
            ``store``: what it would write; all of it lies in memory, within the budget. As far as measurement
            says that it pays; never changes a token.

    Raises:
        NotAStoreError, StoreVersionError, CorruptStoreError: the store cannot be used.
        BudgetError: the budget cannot work; the message names the smallest that can.
        RequestError: an option has no such value.
    """
    if not isinstance(store, str | os.PathLike):
        raise RequestError(f"store is {store!r:.60}; give the path of a store's folder or of a GGUF file")
    if kv_format not in KV_FORMATS:
        raise RequestError(f"no KV format {kv_format!r}; choose one of {', '.join(KV_FORMATS)}")
    context = None if context is None else arguments.whole("context", context, 1)
    num_texts = arguments.whole("num_texts", num_texts, 1)
    if num_threads is not None:
        set_num_threads(num_threads)
    budget_bytes = None if memory is None else parse_size(memory)
    cache_bytes = None if cache is None else parse_size(cache)
    draft_name, draft_store = find_draft(draft)
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
        num_texts=num_texts,
        tier_bytes=None if tier is None else parse_size(tier),
        draft=draft_name,
        draft_store=draft_store,
    )
    engine = load_engine(_open(Path(store)), options)
    for note in engine.notes:
        warnings.warn(note, stacklevel=2)
    return Model(engine)


def find_draft(draft: str | Path) -> tuple[str, Store | None]:
    """What ``draft`` of ``load`` means: its name, and the store that drafts where it is one.

    Raises:
        RequestError: there is no such store, or it cannot be used.
    """
    if draft in DRAFTS:
        return str(draft), None
    if not isinstance(draft, str | os.PathLike):
        raise RequestError(f"draft is {draft!r:.60}; give one of {', '.join(DRAFTS)}, or the path of a store")
    try:
        return STORE, _open(Path(draft))
    except NotAStoreError:
        raise RequestError(
            f"no draft {str(draft)!r}; choose one of {', '.join(DRAFTS)}, or give a small store"
        ) from None


def _open(path: Path) -> Store:
    if path.suffix == ".gguf" and path.is_file():
        # Only here: stores are opened without the code that reads checkpoints.
        from edgemoe.convert import open_gguf

        return open_gguf(path)
    return open_store(path)


def set_num_threads(num_threads: int) -> None:
    """Compute on so many threads, in the whole process.

    Raises:
        RequestError: none, or so many that they only hold each other up.
    """
    most = max(16, 4 * (os.cpu_count() or 1))
    if not 1 <= arguments.whole("num_threads", num_threads, 0) <= most:
        raise RequestError(f"num_threads is {num_threads}; give 1 to {most}, best one for each core")
    native.set_num_threads(int(num_threads))


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
        """How the model's authors want tokens drawn (generation_config.json); used where nothing is said."""
        return dict(self._open().sampling)

    def stream(self, prompt: str | Sequence[int], **options: Unpack[AnswerOptions]) -> Stream:
        """Continue a prompt (text or token ids); iterate over the result to get the text as it comes.

        Any number of streams may be open at once, in one thread or in many.

        Args:
            prompt: text, or token ids.
            options: by name, none of them required:

                * max_tokens: longest answer. Default: 256.
                * temperature: 0 takes the likeliest token each time. Default, as of the next four: what the
                  model's authors say (``sampling_defaults``), else 0.
                * top_k: draw among the K likeliest; 0: all.
                * top_p: draw among the likeliest that hold this share of the probability.
                * min_p: leave out tokens less likely than this share of the likeliest.
                * repetition_penalty: above 1 makes tokens of prompt and answer less likely to come again.
                * presence_penalty, frequency_penalty: taken off the logits of tokens that the answer has,
                  once, and once for each time.
                * logit_bias: {token id: number} added to logits.
                * seed: the same seed gives the same answer, at any budget, whatever else is going on.
                * stop: a text, or several: end before any of these.
                * logprobs: tell how likely each token was, beside so many of the likeliest.
                * constraint: says which tokens may come next; see ``edgemoe.engine.sampling.Constraint``.
                * progress: called with (tokens done, of all) as the prompt is read.

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
        """As ``stream``, all at once. Ctrl-C returns what there is, with finish_reason "interrupted"."""
        return _finish(self.stream(prompt, **options))

    def generate_n(
        self, prompt: str | Sequence[int], n: int, **options: Unpack[AnswerOptions]
    ) -> list[Generation]:
        """``n`` answers to one prompt, which is read once; options as in ``stream``.

        With a seed, answer number i (from 0) is the one that ``seed + i`` gives.

        Raises:
            RequestError: as ``stream``; fewer than one answer, or a constraint, which is of one answer only.
        """
        n = arguments.whole("n", n, 1)
        if n > 1 and options.get("constraint") is not None:
            raise RequestError(
                "a constraint is of one answer only: call generate once for each, with its own"
            )
        seed = options.get("seed")
        seed = None if seed is None else arguments.whole("seed", seed, 0)
        streams = []
        for i in range(n):
            own: AnswerOptions = {**options, "seed": None if seed is None else seed + i}
            streams.append(self.stream(prompt, **own))
        session = self._open().session
        num_at_once = session.num_at_once(max(stream.num_tokens for stream in streams))
        for start in range(0, n, num_at_once):
            together = streams[start : start + num_at_once]
            for stream in together[: len(together) if len(together) > 1 else 0]:
                stream.prepare()  # the first computes it, and the others copy
            write_all(together, num_at_once)
        return [stream.generation for stream in streams]

    def generate_many(
        self,
        prompts: Sequence[str | Sequence[int]],
        *,
        on_answer: Progress | None = None,
        **options: Unpack[AnswerOptions],
    ) -> list[Generation]:
        """Answers to many prompts, in their order; options as in ``stream``, for each.

        ``on_answer(done, total)`` is told after each answer. All prompts are checked before one is read.

        Raises:
            RequestError: as ``stream``; or a constraint, which is of one answer only.
        """
        if options.get("constraint") is not None:
            raise RequestError(
                "a constraint is of one answer only: call generate once for each, with its own"
            )
        if isinstance(prompts, str | bytes):
            raise RequestError("prompts is one text; give a list of them, or call generate")
        if isinstance(prompts, Mapping) or not isinstance(prompts, Iterable):
            raise RequestError(f"prompts is {prompts!r:.60}; give a list of texts or of token ids")
        streams = [self.stream(prompt, **options) for prompt in prompts]
        if not streams:
            return []
        num_done = 0

        def count() -> None:
            nonlocal num_done
            num_done += 1
            if on_answer is not None:
                on_answer(num_done, len(streams))

        longest = max(stream.num_tokens for stream in streams)
        write_all(streams, self._open().session.num_at_once(longest), count)
        return [stream.generation for stream in streams]

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
        token_ids = read_chat(engine, messages, _template_options(template_options))
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
        text.save(Path(path), begins_with, engine.weights_id)
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


def _template_options(options: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if options is not None and not isinstance(options, Mapping):
        raise RequestError(f"template_options is {options!r:.60}; give a table of names and values")
    unnamed = next((name for name in options or () if not isinstance(name, str)), None)
    if unnamed is not None:
        raise RequestError(f"template_options has the name {unnamed!r:.60}; names are texts")
    if options and "messages" in options:
        raise RequestError("template_options has 'messages', which are the conversation itself")
    return options or {}


def _finish(stream: Stream) -> Generation:
    with stream:
        try:
            for _ in stream:
                pass
        except KeyboardInterrupt:
            pass
        return stream.generation
