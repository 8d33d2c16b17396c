"""Several answers at once against one after the other, at several shares of the experts in memory.

    python benchmarks/batch.py STORE [--text FILE] [--gguf SAME.gguf] [-o FILE]

For every share and number of texts: tokens per second of all answers together, written one after the other
("in turn"), as the engine chooses ("chosen"), and all in one step whether that pays or not ("forced"); misses
and bytes read per token beside them. Then as many samples of one prompt, two prompts read in turn and at
once, and how long a stream waits between two tokens (95th percentile) alone and while another text's long
prompt is read. With --gguf llama.cpp writes as many sequences in one batch, all of its weights in memory.
Every way is run --repeats times and the median counts. Each row is printed when it is measured; one JSON
line at the end has everything.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from llama_batch import llama_cpp_rate
from make_model import token_chain

import edgemoe
from edgemoe.engine.answer import Request
from edgemoe.engine.generation import Stream
from edgemoe.engine.loading import Engine, LoadOptions, load_engine
from edgemoe.engine.together import write_all
from edgemoe.store import Store, open_store

SHARES, COUNTS = (1.0, 0.75, 0.5, 0.25), (1, 2, 4, 8, 16)
# A prompt's chunk comes with one step in about thirty: of fewer tokens, chance says if 5 in 100 meet one.
PACED_TOKENS = 192


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

    def __str__(self) -> str:
        return (
            f"{self.share:5.0%}  {self.count:3d}  {self.what:16s} {self.tokens_per_s:9.1f} tokens/s"
            f" {self.misses_per_token:8.1f} misses {self.bytes_per_token / 1e6:8.2f} MB a token"
        )


@dataclass(frozen=True)
class Pace:
    """How long a stream waits between two tokens: 95th percentiles."""

    share: float
    alone_s: float
    beside_a_prompt_s: float
    ratio: float

    def __str__(self) -> str:
        return (
            f"{self.share:5.0%}  between two tokens, 95 in 100 within {self.alone_s * 1e3:.1f} ms alone,"
            f" {self.beside_a_prompt_s * 1e3:.1f} ms beside a prompt"
        )


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

    def rows(self, share: float, count: int) -> Iterator[Row]:
        """All ways of writing ``count`` answers, each measured when it is asked for."""
        prompts = [self.piece(i, self._sizes.prompt) for i in range(count)]
        ways: list[tuple[str, int | None, list[list[int]]]] = [("in turn", 1, prompts)]
        if count > 1:
            ways += [
                ("chosen", None, prompts),
                ("forced", count, prompts),
                ("samples", None, prompts[:1] * count),
            ]
        for way in ways:
            yield self._written(share, count, *way)

    def read_at_once(self, share: float) -> Iterator[Row]:
        """Two prompts in turn, and at once."""
        length = min(self._sizes.chunk, self._sizes.context(context_of(self._store)) - 1)
        prompts = [self.piece(i, length) for i in range(2)]

        def read(engine: Engine, at_once: int) -> None:
            write_all([Stream(engine, Request(prompt, 1)) for prompt in prompts], at_once)

        for name, at_once in (("prompts in turn", 1), ("prompts at once", 2)):
            yield self._timed(share, 2, name, 2 * length, None, partial(read, at_once=at_once))

    def pace(self, share: float) -> Pace:
        """A stream's pace alone, and during another text's long prompt."""
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
        return Pace(share, alone, beside, beside / alone)

    def _gaps(self, engine: Engine, begin: Callable[[], None]) -> float:
        length = max(self._sizes.answer, PACED_TOKENS)
        stream = Stream(engine, Request(self.piece(0, self._sizes.prompt), length))
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


def measure(bench: Bench, shares: Sequence[float], counts: Sequence[int]) -> Iterator[Row | Pace]:
    """Everything about a store, row by row."""
    for share in shares:
        for count in counts:
            yield from bench.rows(share, count)
        yield from bench.read_at_once(share)
        yield bench.pace(share)


def measure_llama_cpp(bench: Bench, gguf: Path, counts: Sequence[int], sizes: Sizes) -> Iterator[Row]:
    """The same answers by llama.cpp."""
    for count in counts:
        prompts = [bench.piece(i, sizes.prompt) for i in range(count)]
        yield Row(1.0, "llama.cpp", count, llama_cpp_rate(gguf, prompts, sizes.answer), 0.0, 0.0)


def read_tokens(store: Path, text: Path | None) -> Sequence[int]:
    """Tokens of a text, or of a made-up one."""
    if text is None:
        return token_chain(20_000, seed=7)
    with edgemoe.load(store) as model:
        return model.tokenizer.encode(text.read_text(encoding="utf-8")[:200_000])


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
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
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print every row as it comes, and everything in one line of JSON at the end."""
    args = parse_arguments(arguments)
    sizes = Sizes(args.prompt, args.answer, args.chunk, args.long)
    bench = Bench(open_store(args.store), read_tokens(args.store, args.text), sizes, args.repeats)
    measured = [measure(bench, args.share, args.count)]
    if args.gguf is not None:
        measured.append(measure_llama_cpp(bench, args.gguf, args.count, sizes))
    found: dict[type, list[dict[str, Any]]] = {Row: [], Pace: []}
    for row in chain.from_iterable(measured):
        print(row, flush=True)
        found[type(row)].append(asdict(row))
    line = json.dumps({"store": str(args.store), "rows": found[Row], "paces": found[Pace]})
    print(line)
    if args.output is not None:
        args.output.write_text(line + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
