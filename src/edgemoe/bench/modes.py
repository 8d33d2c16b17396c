"""Ways of running a store that are compared with each other, and how one of them is timed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgemoe.engine.device_cgroup import CgroupUnavailable, bounded
from edgemoe.engine.drafting import Room
from edgemoe.engine.generation import current_stats
from edgemoe.engine.loading import Engine, LoadOptions, load_engine
from edgemoe.engine.machine import peak_resident_bytes
from edgemoe.errors import RequestError
from edgemoe.models import read_spec

if TYPE_CHECKING:
    from edgemoe.store import Device, Store

# The paper's baselines by its names (arXiv 2308.14352, section V), then ours.
MODES = {
    "resident": "every expert in memory (IO-FREE)",
    "on-demand": "a layer's experts read when its router asks, nothing kept (IO-EXP; of 4 bits IO-QEXP)",
    "swap": "each layer read whole, nothing kept",
    "cache": "cache without prediction",
    "full": "cache with prediction and reading ahead",
}


@dataclass(frozen=True)
class Measurement:
    """One test of one mode. ``tokens_per_s`` has one value per repetition; the rest are means."""

    store: str
    mode: str
    test: str
    tokens_per_s: list[float]
    hit_share: float
    bytes_per_token: float
    wasted_bytes_per_token: float
    stall_s_per_token: float
    peak_bytes: int
    bounded_by: str | None  # what made storage as slow as the device asked for
    far_bytes_per_token: float = 0.0  # of a store at a URL: over the network
    tier_bytes_per_token: float = 0.0  # and from its copy on this disk
    joules_per_token: float = 0.0
    energy_source: str = "estimate"  # or the counters that say it
    num_drafted: int = 0
    num_accepted: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Tests:
    """What is timed: reading a prompt of random tokens, writing, and following a real text token by token."""

    num_prompt: int
    num_written: int
    text: Sequence[int]
    num_repeats: int


def run_mode(store: Store, mode: str, options: LoadOptions, tests: Tests) -> list[Measurement]:
    """Load, warm up, time, close."""
    _forget_peak()
    with held_to(options.device, store.path, options.budget_bytes) as bounded_by:
        engine = load_engine(store, options)
        try:
            _refuse_beyond_context(tests, engine.memory.context)
            if mode == "resident":
                engine.experts.preload()
            return [
                _measure(engine, store.name, mode, name, tests, bounded_by) for name in _test_names(tests)
            ]
        finally:
            engine.close()


def _refuse_beyond_context(tests: Tests, context: int) -> None:
    """Raises RequestError where a test's tokens do not fit: before they are made, which takes memory."""
    for option, count, most in (("-p", tests.num_prompt, context), ("-n", tests.num_written, context - 1)):
        if count > most:
            raise RequestError(f"{option} {count} is beyond the context; {most} tokens are the most here")


@contextmanager
def held_to(device: Device | None, path: Path, memory_bytes: int | None) -> Iterator[str | None]:
    """Bound this process by a cgroup where the user may make one; says what bounds its reads.

    Expert reads are paced by their reader in any case: a cgroup alone lets them come in bursts.
    """
    with ExitStack() as stack:
        how = None
        if device is not None:
            try:
                stack.enter_context(bounded(path, device.bytes_per_s, memory_bytes))
                how = "cgroup and paced reader"
            except CgroupUnavailable as error:
                how = f"paced reader alone: {error}"
        yield how


def mode_options(
    mode: str,
    store: Store,
    memory_bytes: int | None,
    cache_bytes: int | None,
    device: Device | None,
    tier_bytes: int | None = None,
    draft: str = "none",
    draft_store: Store | None = None,
) -> LoadOptions:
    """How a mode differs from what the user asked for.

    Raises:
        RequestError: there is no such mode.
    """
    if mode not in MODES:
        raise RequestError(f"no mode {mode!r}; choose all, or some of {', '.join(MODES)}")
    sizes: dict[int, int] = {}
    for (layer, _), entry in store.manifest.experts.items():
        sizes[layer] = sizes.get(layer, 0) + entry.num_bytes
    largest = max(entry.num_bytes for entry in store.manifest.experts.values())
    capacities = {
        "resident": (memory_bytes, sum(sizes.values())),
        "on-demand": (memory_bytes, read_spec(store.config).most_chosen * largest),
        "swap": (memory_bytes, max(sizes.values())),
    }
    budget, cache = capacities.get(mode, (memory_bytes, cache_bytes))
    return LoadOptions(
        budget_bytes=budget,
        cache_bytes=cache,
        policy="lru" if mode in ("on-demand", "swap") else LoadOptions.policy,
        predictor="auto" if mode == "full" else "none",
        device=None if mode == "resident" else device,
        swaps_layers=mode == "swap",
        tier_bytes=tier_bytes,
        draft=draft,
        draft_store=draft_store,
    )


def _test_names(tests: Tests) -> list[str]:
    names = [f"pp{tests.num_prompt}"] if tests.num_prompt else []
    names += [f"tg{tests.num_written}"] if tests.num_written else []
    return names + ([f"text{len(tests.text)}"] if tests.text else [])


def _measure(
    engine: Engine, store: str, mode: str, name: str, tests: Tests, bounded_by: str | None
) -> Measurement:
    rates = []
    prepare, run, num_tokens = _test(engine, name, tests)
    prepare()
    run()  # once for nothing: the cache settles
    before, joules = engine.experts.counts, current_stats(engine).joules
    totals = engine.drafting.totals
    num_drafted, num_accepted = totals.num_drafted, totals.num_accepted
    for _ in range(tests.num_repeats):
        prepare()
        began_s = time.perf_counter()
        run()
        rates.append(num_tokens / (time.perf_counter() - began_s))
    counts, stats = engine.experts.counts - before, current_stats(engine)
    tokens = tests.num_repeats * num_tokens
    return Measurement(
        store=store,
        mode=mode,
        test=name,
        tokens_per_s=rates,
        hit_share=counts.hits / max(1, counts.hits + counts.misses),
        bytes_per_token=counts.bytes_read / tokens,
        wasted_bytes_per_token=counts.wasted_bytes / tokens,
        stall_s_per_token=counts.waited_s / tokens,
        peak_bytes=peak_resident_bytes(),
        bounded_by=bounded_by,
        far_bytes_per_token=counts.far_bytes / tokens,
        tier_bytes_per_token=counts.tier_bytes / tokens,
        joules_per_token=(stats.joules - joules) / tokens,
        energy_source=stats.energy_source,
        num_drafted=totals.num_drafted - num_drafted,
        num_accepted=totals.num_accepted - num_accepted,
    )


def _test(engine: Engine, name: str, tests: Tests) -> tuple[Any, Any, int]:
    """What comes before the clock starts, what is timed, and its tokens."""
    session, vocab_size = engine.session, engine.spec.vocab_size
    random = np.random.default_rng(0).integers(0, vocab_size, max(1, tests.num_prompt)).tolist()

    context, followed = session.split(tests.text) if tests.text else ([0], [])

    def clear() -> None:
        session.prefill([0])
        session.drafts = engine.drafting.begin(Room(session.num_slots))

    def read_prompt() -> None:
        session.forget()
        session.prefill(random)

    def read_context() -> None:
        session.prefill(context)
        session.drafts = engine.drafting.begin(Room(session.num_slots))

    def write() -> None:
        logits = session.step(random[0])
        for _ in range(tests.num_written - 1):
            logits = session.step(int(np.argmax(logits)))

    def follow() -> None:
        for token_id in followed:
            session.step(token_id)

    if name.startswith("pp"):
        return clear, read_prompt, tests.num_prompt
    return (
        (clear, write, tests.num_written) if name.startswith("tg") else (read_context, follow, len(followed))
    )


def _forget_peak() -> None:
    """Make the kernel count the process's peak memory from now on."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return  # then the peak is that of the largest mode so far
