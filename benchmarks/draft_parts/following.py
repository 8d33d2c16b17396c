"""Models that step through a text, with drafts or without, and what that takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from edgemoe.engine.drafting import Drafting, Room
from edgemoe.engine.loading import Engine, LoadOptions, load_engine
from edgemoe.store import Store


@dataclass(frozen=True)
class Followed:
    """Of one answer. ``choices``: the likeliest token after each of its tokens."""

    seconds: float
    bytes_read: int
    choices: list[int]
    num_drafted: int = 0
    num_accepted: int = 0


def load(store: Store, share: float, options: LoadOptions) -> Engine:
    """The store with this share of the experts' bytes in memory."""
    engine = load_engine(store, options)
    if share == 1:
        engine.experts.preload()
    return engine


def cache_bytes_of(store: Store, share: float) -> int:
    """A share of the experts' bytes, but room for one at least."""
    sizes = [entry.num_bytes for entry in store.manifest.experts.values()]
    return max(max(sizes), int(share * sum(sizes)))


def follow(
    engine: Engine, drafting: Drafting | None, prompt: Sequence[int], answer: Sequence[int]
) -> Followed:
    """Step through an answer once its prompt has been read; without drafts where ``drafting`` is None."""
    text, _ = engine.session.open(prompt, len(answer) + 1)
    drafts = None if drafting is None else drafting.begin(Room(len(prompt) + len(answer) + 1))
    text.follower = None if drafts is None else drafts.observe
    text.read(prompt)
    choices = []
    before, began_s = engine.experts.counts, time.perf_counter()
    for token_id in answer:
        logits = text.step(token_id) if drafts is None else drafts.step(text, token_id)
        choices.append(int(logits.argmax()))
    seconds, read = time.perf_counter() - began_s, engine.experts.counts - before
    text.close(is_kept=False)
    if drafts is None:
        return Followed(seconds, read.bytes_read, choices)
    drafts.close()
    return Followed(seconds, read.bytes_read, choices, drafts.counts.num_drafted, drafts.counts.num_accepted)
