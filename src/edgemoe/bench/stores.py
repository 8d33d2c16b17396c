"""Stores timed one after the other, each in several modes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemoe import arguments
from edgemoe.api import find_draft, set_num_threads
from edgemoe.bench.modes import MODES, Measurement, Tests, mode_options, run_mode
from edgemoe.convert import open_runnable
from edgemoe.errors import RequestError
from edgemoe.store import Store, find_device
from edgemoe.text import Tokenizer
from edgemoe.units import parse_size

# Tokens of a text that are followed where none are to be written.
_DEFAULT_FOLLOWED = 128


@dataclass(frozen=True)
class BenchOptions:
    """What is timed, and how stores are loaded for it; checked when it is made.

    ``modes`` are names of MODES. ``memory``, ``num_threads``, ``tier``, ``draft`` and ``device`` as in
    ``edgemoe.load``; ``cache`` is a size, or a share of all experts such as "25%". ``num_prompt`` tokens are
    read and ``num_written`` written, 0: not timed; ``text`` is followed token by token. Each is timed
    ``num_repeats`` times.

    Raises:
        RequestError: there is no such mode, device or size, or nothing to time.
    """

    modes: tuple[str, ...] = ("full",)
    memory: str | int | None = None
    cache: str | int | None = None
    device: str | None = None
    num_prompt: int = 512
    num_written: int = 128
    text: str | None = None
    num_repeats: int = 3
    num_threads: int | None = None
    tier: str | int | None = None
    draft: str | Path = "none"

    def __post_init__(self) -> None:
        for mode in self.modes:
            if mode not in MODES:
                raise RequestError(f"no mode {mode!r}; choose all, or some of {', '.join(MODES)}")
        for name, least in (("num_prompt", 0), ("num_written", 0), ("num_repeats", 1)):
            arguments.whole(name, getattr(self, name), least)
        if not (self.num_prompt or self.num_written or self.text is not None):
            raise RequestError("nothing to time; ask for a prompt, for writing, or give a text")
        if self.device is not None:
            find_device(self.device)
        for size in (self.memory, self.tier):
            if size is not None:
                parse_size(size)
        self.cache_bytes(0)

    def cache_bytes(self, expert_num_bytes: int) -> int | None:
        """The cap on the expert cache of a store whose experts take so many bytes; None: there is none."""
        cache = self.cache
        if cache is None:
            return None
        if not (isinstance(cache, str) and cache.endswith("%")):
            return parse_size(cache)
        try:
            share = float(cache[:-1]) / 100
        except ValueError:
            share = -1.0
        if not 0 < share <= 1:
            raise RequestError(f"cache {cache!r}: give a size such as 2GiB or a share such as 25%")
        return int(share * expert_num_bytes)


def time_stores(stores: Sequence[Path], options: BenchOptions) -> Iterator[list[Measurement]]:
    """Every store in every mode: for each of these, in turn, one measurement a test.

    Raises:
        EdgeMoEError: a store cannot be used, or not within the memory; before anything is timed where that
            can be told.
    """
    set_num_threads(options.num_threads)
    opened = [open_runnable(path) for path in stores]
    draft, draft_store = find_draft(options.draft)
    turns = [
        (
            store,
            mode,
            mode_options(
                mode,
                store,
                None if options.memory is None else parse_size(options.memory),
                options.cache_bytes(sum(entry.num_bytes for entry in store.manifest.experts.values())),
                None if options.device is None else find_device(options.device),
                None if options.tier is None else parse_size(options.tier),
                draft,
                draft_store,
            ),
        )
        for store in opened
        for mode in options.modes
    ]
    count = options.num_written or _DEFAULT_FOLLOWED
    token_ids = [] if options.text is None else _tokens(opened[0], options.text, count)
    tests = Tests(options.num_prompt, options.num_written, token_ids, options.num_repeats)
    for store, mode, load_options in turns:
        yield run_mode(store, mode, load_options, tests)


def _tokens(store: Store, text: str, count: int) -> list[int]:
    token_ids = Tokenizer(store.path, store.config).encode(text)[: max(2, count)]
    if len(token_ids) < 2:
        raise RequestError("give a text of at least two tokens, so that something can be followed")
    return token_ids
