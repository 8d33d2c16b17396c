"""Several answers at once against one after the other, at several shares of the experts in memory.

    python benchmarks/batch.py STORE [--text FILE] [--gguf SAME.gguf] [-o FILE]

For every share and number of texts: tokens per second of all answers together, written one after the other
("in turn"), as the engine chooses ("chosen"), and all in one step whether that pays or not ("forced"); misses
and bytes read per token beside them. Then as many samples of one prompt, two prompts read in turn and at
once, and how long a stream waits between two tokens (95th percentile) alone and while another text's long
prompt is read. With --gguf llama.cpp writes as many sequences in one batch, all of its weights in memory.
Every way is run --repeats times and the median counts. One JSON line at the end has everything.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from make_model import token_chain

import edgemoe
from edgemoe.engine.answer import Request
from edgemoe.engine.generation import Stream
from edgemoe.engine.loading import Engine, LoadOptions, load_engine
from edgemoe.engine.together import write_all
from edgemoe.store import Store, open_store

SHARES, COUNTS = (1.0, 0.75, 0.5, 0.25), (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Sizes:
    """How much is read and written, in tokens."""

    prompt: int = 64
    answer: int = 64
    chunk: int = 512  # each of two prompts that are read at once
    long: int = 8000  # a prompt during which another answer is written

    def context(self, most: int) -> int:
        """Room for any of them, as far as the model goes."""
        return min(most, max(self.prompt + self.answer, self.chunk, self.long) + 8)


@dataclass(frozen=True)
class Row:
    """One way of writing the answers, or of reading the prompts."""

    share: float
    what: str
    count: int
    tokens_per_s: float  # of all texts together
    misses_per_token: float
    bytes_per_token: float


class Bench:
    """A store and the tokens of a text."""

    def __init__(self, store: Store, token_ids: Sequence[int], sizes: Sizes, num_repeats: int) -> None:
        self._store = store
        self._ids = list(token_ids)
        self._sizes = sizes
        self._num_repeats = num_repeats
        self._expert_bytes = sum(entry.num_bytes for entry in store.manifest.experts.values())

    def load(self, share: float, count: int, answers_at_once: int | None = None) -> Engine:
        """With this share of the experts' bytes in memory, and room for so many texts."""
        largest = max(entry.num_bytes for entry in self._store.manifest.experts.values())
        cache_bytes = max(largest, int(share * self._expert_bytes))
        most = context_of(self._store)
        return load_engine(
            self._store,
            LoadOptions(
                context=self._sizes.context(most),
                cache_bytes=cache_bytes,
                num_texts=count,
                answers_at_once=answers_at_once,
            ),
        )

    def rows(self, share: float, count: int) -> list[Row]:
        """All ways of writing ``count`` answers."""
        prompts = [self.piece(i, self._sizes.prompt) for i in range(count)]
        ways: list[tuple[str, int | None, list[list[int]]]] = [("in turn", 1, prompts)]
        if count > 1:
            ways += [
                ("chosen", None, prompts),
                ("forced", count, prompts),
                ("samples", None, prompts[:1] * count),
            ]
        return [self._written(share, count, *way) for way in ways]

    def read_at_once(self, share: float) -> list[Row]:
        """Two prompts in turn, and at once."""
        length = min(self._sizes.chunk, self._sizes.context(context_of(self._store)) - 1)
        prompts = [self.piece(i, length) for i in range(2)]

        def run(engine: Engine, together: bool) -> None:
            streams = [Stream(engine, Request(prompt, 1)) for prompt in prompts]
            write_all(streams, 2 if together else 1)

        return [
            self._timed(share, 2, name, 2 * length, None, lambda e, t=together: run(e, t))
            for name, together in (("prompts in turn", False), ("prompts at once", True))
        ]

    def pace(self, share: float) -> dict[str, float]:
        """95th percentile of the seconds between two tokens: alone, and during another's long prompt."""
        engine = self.load(share, 2)
        try:
            room = engine.memory.context
            other = self.piece(3, min(self._sizes.long, room - 1))
            alone = self._gaps(engine, lambda: None)
            reading = threading.Thread(target=lambda: list(Stream(engine, Request(other, 1))))
            beside = self._gaps(engine, reading.start)
            reading.join()
        finally:
            engine.close()
        return {"share": share, "alone_s": alone, "beside_a_prompt_s": beside, "ratio": beside / alone}

    def _gaps(self, engine: Engine, begin: Callable[[], None]) -> float:
        stream = Stream(engine, Request(self.piece(0, self._sizes.prompt), self._sizes.answer))
        next(stream)
        begin()
        times = [time.perf_counter()]
        for _ in stream:
            times.append(time.perf_counter())
        return float(np.quantile(np.diff(times), 0.95))

    def _written(
        self, share: float, count: int, what: str, at_once: int | None, prompts: Sequence[Sequence[int]]
    ) -> Row:
        def run(engine: Engine) -> None:
            streams = [Stream(engine, Request(prompt, self._sizes.answer)) for prompt in prompts]
            write_all(streams, engine.session.num_at_once(self._sizes.prompt + self._sizes.answer))

        return self._timed(share, count, what, count * self._sizes.answer, at_once, run)

    def _timed(
        self,
        share: float,
        count: int,
        what: str,
        num_tokens: int,
        at_once: int | None,
        run: Callable[[Engine], None],
    ) -> Row:
        engine = self.load(share, count, at_once)
        try:
            run(engine)  # once for nothing: the cache settles
            before, times = engine.experts.counts, []
            for _ in range(self._num_repeats):
                engine.session.forget()
                began_s = time.perf_counter()
                run(engine)
                times.append(time.perf_counter() - began_s)
            costs, written = engine.experts.counts - before, num_tokens * self._num_repeats
        finally:
            engine.close()
        rate = num_tokens / statistics.median(times)
        return Row(share, what, count, rate, costs.misses / written, costs.bytes_read / written)

    def piece(self, number: int, length: int) -> list[int]:
        """Tokens of the text that no other number begins with."""
        start = number * len(self._ids) // max(COUNTS)
        repeated = self._ids[start:] + self._ids * (1 + length // len(self._ids))
        return repeated[:length]


def context_of(store: Store) -> int:
    """The longest text of a store's model."""
    from edgemoe.models import read_spec

    return read_spec(store.config).max_context


def llama_cpp_rate(path: Path, count: int, prompts: Sequence[Sequence[int]], num_tokens: int) -> float:
    """Tokens per second of llama.cpp, greedy, ``count`` sequences in one batch, weights in memory."""
    import llama_cpp as api

    api.llama_backend_init()
    silent = api.llama_log_callback(lambda level, text, data: None)
    api.llama_log_set(silent, ctypes.c_void_p(0))
    model = api.llama_model_load_from_file(str(path).encode(), api.llama_model_default_params())
    params = api.llama_context_default_params()
    params.n_ctx = count * (len(prompts[0]) + num_tokens + 8)
    params.n_seq_max = count
    context = api.llama_init_from_model(model, params)
    vocab_size = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
    batch = api.llama_batch_init(max(len(p) for p in prompts) * count, 0, 1)

    def decode(rows: Sequence[tuple[int, int, int, bool]]) -> None:
        """Rows of (token, position, sequence, whether its logits are wanted)."""
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, is_wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
            batch.seq_id[i][0], batch.logits[i] = sequence, is_wanted
        if api.llama_decode(context, batch):
            raise SystemExit("llama.cpp could not decode")

    def likeliest(row: int) -> int:
        return int(np.ctypeslib.as_array(api.llama_get_logits_ith(context, row), (vocab_size,)).argmax())

    tokens = []
    for s, prompt in enumerate(prompts):
        decode([(token, i, s, i == len(prompt) - 1) for i, token in enumerate(prompt)])
        tokens.append(likeliest(len(prompt) - 1))
    began_s = time.perf_counter()
    for step in range(num_tokens):
        decode([(token, len(prompts[s]) + step, s, True) for s, token in enumerate(tokens)])
        tokens = [likeliest(s) for s in range(count)]
    rate = count * num_tokens / (time.perf_counter() - began_s)
    api.llama_batch_free(batch)
    api.llama_free(context)
    api.llama_model_free(model)
    return rate


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("--text", type=Path, help="prompts are pieces of it; without one, of a made-up text")
    parser.add_argument("--gguf", type=Path, help="the same model for llama.cpp")
    parser.add_argument("--share", type=float, nargs="+", default=SHARES)
    parser.add_argument("--count", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--prompt", type=int, default=Sizes.prompt)
    parser.add_argument("--answer", type=int, default=Sizes.answer)
    parser.add_argument("--chunk", type=int, default=Sizes.chunk)
    parser.add_argument("--long", type=int, default=Sizes.long)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, help="write the JSON line here as well")
    args = parser.parse_args(arguments)
    store, sizes = open_store(args.store), Sizes(args.prompt, args.answer, args.chunk, args.long)
    if args.text is None:
        ids = token_chain(20_000, seed=7)
    else:
        with edgemoe.load(args.store) as model:
            ids = model.tokenizer.encode(args.text.read_text(encoding="utf-8")[:200_000])
    bench = Bench(store, ids, sizes, args.repeats)
    rows: list[Row] = []
    paces = []
    for share in args.share:
        for count in args.count:
            rows += bench.rows(share, count)
        rows += bench.read_at_once(share)
        paces.append(bench.pace(share))
    if args.gguf is not None:
        for count in args.count:
            prompts = [bench.piece(i, sizes.prompt) for i in range(count)]
            rate = llama_cpp_rate(args.gguf, count, prompts, sizes.answer)
            rows.append(Row(1.0, "llama.cpp", count, rate, 0.0, 0.0))
    for row in rows:
        print(
            f"{row.share:5.0%}  {row.count:3d}  {row.what:16s} {row.tokens_per_s:9.1f} tokens/s"
            f" {row.misses_per_token:8.1f} misses {row.bytes_per_token / 1e6:8.2f} MB a token"
        )
    for pace in paces:
        print(
            f"{pace['share']:5.0%}  between two tokens, 95 in 100 within"
            f" {pace['alone_s'] * 1e3:.1f} ms alone, {pace['beside_a_prompt_s'] * 1e3:.1f} ms beside a prompt"
        )
    line = json.dumps({"store": str(args.store), "rows": [asdict(row) for row in rows], "paces": paces})
    print(line)
    if args.output is not None:
        args.output.write_text(line + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
