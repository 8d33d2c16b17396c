"""Drafts from the text itself against one token a step, at several shares of the experts in memory.

    python benchmarks/draft.py STORE [--text FILE] [-o FILE]

Texts are followed token by token, as an answer would be written that says just that: a "copy" of what the
prompt says, an "edit" of it, where one token in 20 is another, and a "story", which repeats nothing of its
prompt on purpose. Both ways hold a model of their own in this process and take turns, text by text; the
median of the ratios of their times counts. Without --text the text is made up, as in make_model.py.
One JSON line at the end has everything.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from make_model import token_chain

import edgemoe
from edgemoe.engine.drafting import Room
from edgemoe.engine.loading import Engine, LoadOptions, load_engine
from edgemoe.store import Store, open_store

SHARES = (1.0, 0.5, 0.25)
EDITED = 0.05  # of an edit's tokens


@dataclass(frozen=True)
class Row:
    """One kind of text with one share of the experts' bytes in memory."""

    share: float
    text: str
    tokens_per_s: float  # with drafts
    speedup: float  # over one token a step; median of the turns
    lowest: float  # of the turns' ratios
    highest: float
    num_drafted: int
    num_accepted: int
    bytes_per_token: tuple[float, float]  # read, without drafts and with them

    def __str__(self) -> str:
        without, with_drafts = (number / 1024 for number in self.bytes_per_token)
        turns = f"({self.lowest:.2f} to {self.highest:.2f})"
        accepted = f"{self.num_accepted} of {self.num_drafted}"
        return (
            f"{self.share:5.0%}  {self.text:6s} {self.tokens_per_s:8.1f}  {self.speedup:7.2f} {turns:15s}"
            f" {accepted:>12s}  {without:9.0f} {with_drafts:9.0f}"
        )


def load(store: Store, share: float, context: int, draft: str) -> Engine:
    """The store with this share of the experts' bytes in memory."""
    sizes = [entry.num_bytes for entry in store.manifest.experts.values()]
    cache_bytes = max(max(sizes), int(share * sum(sizes)))
    engine = load_engine(store, LoadOptions(context=context, cache_bytes=cache_bytes, draft=draft))
    if share == 1:
        engine.experts.preload()
    return engine


def follow(engine: Engine, prompt: Sequence[int], answer: Sequence[int]) -> tuple[float, float]:
    """Seconds, and bytes read, of stepping through an answer once its prompt has been read."""
    session = engine.session
    session.forget()
    session.prefill(prompt)
    session.drafts = engine.drafting.begin(Room(session.num_slots))
    before, began_s = engine.experts.counts, time.perf_counter()
    for token_id in answer:
        session.step(token_id)
    return time.perf_counter() - began_s, (engine.experts.counts - before).bytes_read


def texts_of(ids: Sequence[int], length: int, turn: int) -> dict[str, tuple[list[int], list[int]]]:
    """The prompt and the answer of every kind of text; another piece in every turn."""
    start = turn * 2 * length % max(1, len(ids) - 2 * length)
    passage, rest = list(ids[start : start + length]), list(ids[start + length : start + 2 * length])
    rng = np.random.default_rng(turn)
    edited = [rest[i] if rng.random() < EDITED else token for i, token in enumerate(passage)]
    return {"copy": (passage, passage), "edit": (passage, edited), "story": (passage, rest)}


def rows(store: Store, ids: Sequence[int], share: float, length: int, num_turns: int) -> list[Row]:
    """All kinds of text with one share in memory."""
    engines = {draft: load(store, share, 2 * length + 32, draft) for draft in ("none", "text")}
    taken: dict[str, list[tuple[float, float]]] = {}
    read: dict[tuple[str, str], float] = {}
    counts: dict[str, list[int]] = {}
    try:
        for turn in range(num_turns + 1):  # the first for nothing: the caches settle
            print(f"{share:.0%} in memory, turn {turn} of {num_turns}", file=sys.stderr)
            for kind, (prompt, answer) in texts_of(ids, length, turn).items():
                seconds = {}
                order = ("none", "text") if turn % 2 else ("text", "none")
                for draft in order:
                    totals = engines[draft].drafting.totals
                    before = (totals.num_drafted, totals.num_accepted)
                    seconds[draft], num_bytes = follow(engines[draft], prompt, answer)
                    if turn:
                        read[kind, draft] = read.get((kind, draft), 0.0) + num_bytes
                    if turn and draft == "text":
                        found = counts.setdefault(kind, [0, 0])
                        found[0] += totals.num_drafted - before[0]
                        found[1] += totals.num_accepted - before[1]
                if turn:
                    taken.setdefault(kind, []).append((seconds["none"], seconds["text"]))
    finally:
        for engine in engines.values():
            engine.close()
    made = []
    for kind, pairs in taken.items():
        ratios = [without / with_drafts for without, with_drafts in pairs]
        num_tokens = num_turns * length
        made.append(
            Row(
                share,
                kind,
                length / statistics.median(with_drafts for _, with_drafts in pairs),
                statistics.median(ratios),
                min(ratios),
                max(ratios),
                *counts[kind],
                (read[kind, "none"] / num_tokens, read[kind, "text"] / num_tokens),
            )
        )
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("--text", type=Path, help="prompts and answers are pieces of it")
    parser.add_argument("--share", type=float, nargs="+", default=SHARES)
    parser.add_argument("--length", type=int, default=128, help="tokens of a prompt, and of an answer")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("-o", "--output", type=Path, help="write the JSON line here as well")
    args = parser.parse_args(arguments)
    store = open_store(args.store)
    if args.text is None:
        ids = token_chain(20_000, seed=7)
    else:
        with edgemoe.load(args.store) as model:
            ids = model.tokenizer.encode(args.text.read_text(encoding="utf-8")[:200_000])
    found: list[Row] = []
    print("share  text   tokens/s  speedup (turns)          accepted  KiB read a token, with drafts")
    for share in args.share:
        for row in rows(store, ids, share, args.length, args.turns):
            print(row, flush=True)
            found.append(row)
    line = json.dumps({"store": str(args.store), "rows": [asdict(row) for row in found]})
    print(line)
    if args.output is not None:
        args.output.write_text(line + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
