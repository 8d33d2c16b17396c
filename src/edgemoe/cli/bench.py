"""``edgemoe bench``: how fast a store runs, compared with ways of running it without this engine's parts."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemoe.cli.given import only_one, read_text
from edgemoe.cli.groups import with_groups
from edgemoe.cli.options import DraftOption, JsonOption, MemoryOption, ThreadsOption, TierOption, unset
from edgemoe.cli.output import count_progress, new_table, print_json, print_table

if TYPE_CHECKING:
    from edgemoe.bench import BenchOptions, Measurement


@dataclass(frozen=True)
class RunningArguments:
    """In which ways the stores are run, and within what."""

    mode: Annotated[
        str,
        typer.Option(
            "--mode",
            metavar="NAME,...",
            help="Ways of running: resident, on-demand, swap, cache, full, or all.",
        ),
    ] = "full"
    memory: MemoryOption = None
    cache: Annotated[
        str | None,
        unset(
            "--cache",
            "SIZE|P%",
            "Cap on the expert cache within --memory, in bytes or as a share of all experts.",
        ),
    ] = None
    device: Annotated[
        str | None,
        unset(
            "--device",
            "NAME",
            "Slow storage down to that of jetson-tx2-ssd, jetson-tx2-usb, rpi4-sd, nvme or network."
            " Where a cgroup can be made, it enforces this for every read of the process, and --memory too.",
        ),
    ] = None
    num_threads: ThreadsOption = None
    tier: TierOption = None
    draft: DraftOption = "none"

    def modes(self) -> tuple[str, ...]:
        """The names of --mode."""
        from edgemoe.bench import MODES

        return tuple(MODES) if self.mode == "all" else tuple(map(str.strip, self.mode.split(",")))


@dataclass(frozen=True)
class TestArguments:
    """What is timed, and how often."""

    num_prompt: Annotated[
        int,
        typer.Option(
            "--n-prompt", "-p", metavar="N", min=0, help="Tokens of the prompt test; 0 leaves it out."
        ),
    ] = 512
    num_written: Annotated[
        int,
        typer.Option(
            "--n-gen", "-n", metavar="N", min=0, help="Tokens of the writing test; 0 leaves it out."
        ),
    ] = 128
    text: Annotated[
        list[Path] | None,
        unset("--text", "FILE", "Also time following this text token by token."),
    ] = None
    num_repeats: Annotated[
        int, typer.Option("--repetitions", "-r", metavar="N", min=1, help="How often each test is run.")
    ] = 3

    def read_text(self) -> str | None:
        """The text to follow, if there is one."""
        path = only_one(self.text, "--text")
        return None if path is None else read_text(path)


@with_groups
def bench(
    stores: Annotated[
        list[Path],
        typer.Argument(
            metavar="STORE", help="Stores to measure, such as one of 4 bits and one of mixed widths."
        ),
    ],
    running: RunningArguments,
    tests: TestArguments,
    as_json: JsonOption = False,
) -> None:
    r"""Measure speed: reading a prompt (pp512) and writing an answer (tg128).

    \b
    Modes:
      resident   every expert is in memory
      on-demand  the experts that a router chooses are read, and none is kept
      swap       whole layers are read
      cache      experts are kept in a cache, as in normal use, but nothing is read ahead
      full       normal use: a cache, and experts are read ahead

    With --text, the store also follows that text token by token. If the model has an encoder, the first half
    of the text is the prompt.

    \b
    edgemoe bench qwen.store --memory 6GiB
    edgemoe bench qwen.store --cache 25% --mode all --device jetson-tx2-ssd --text book.txt
    edgemoe bench q8.store q4.store --mode on-demand -p 0
    edgemoe bench qwen.store --draft text --text code.py -p 0 -n 512
    """
    from edgemoe.bench import time_stores

    options = _options(running, tests)
    results: list[Measurement] = []
    try:
        with count_progress("timing", "modes") as advance:
            for done, measured in enumerate(time_stores(stores, options), 1):
                results += measured
                advance(done, len(stores) * len(options.modes))
    finally:  # what was timed stays, whatever ends the rest
        if as_json and results:
            print_json({"device": options.device, "results": [result.to_json() for result in results]})
        elif results:
            _print_results(results)


def _options(running: RunningArguments, tests: TestArguments) -> BenchOptions:
    """As the benchmark takes them."""
    from edgemoe.bench import BenchOptions

    return BenchOptions(
        modes=running.modes(),
        memory=running.memory,
        cache=running.cache,
        device=running.device,
        num_prompt=tests.num_prompt,
        num_written=tests.num_written,
        text=tests.read_text(),
        num_repeats=tests.num_repeats,
        num_threads=running.num_threads,
        tier=running.tier,
        draft=running.draft,
    )


def _print_results(results: list[Measurement]) -> None:
    names = list(dict.fromkeys(Path(result.store).name for result in results))
    _print_table(results, names)
    for result in results:
        for detail in _details(result):
            print(f"{result.mode} {result.test}: {detail}")
    for how in dict.fromkeys(result.bounded_by for result in results if result.bounded_by):
        print(f"storage bounded by {how}")


def _print_table(results: list[Measurement], store_names: list[str]) -> None:
    """A row for every test; with a column of stores where there are several."""
    from edgemoe.units import MIB

    has_several = len(store_names) > 1
    what = f"tokens per second; per token KiB read, KiB wasted, ms waiting, mJ ({results[0].energy_source})"
    table = new_table(
        what if has_several else f"{store_names[0]}: {what}",
        *(("store",) if has_several else ()),
        *("mode", "test", "t/s", "hits", "read", "wasted", "wait", "mJ", "peak MiB"),
        is_narrow=True,
    )
    for result in results:
        table.add_row(
            *((Path(result.store).name,) if has_several else ()),
            *(result.mode, result.test, _speed(result.tokens_per_s)),
            f"{result.hit_share:.1%}",
            f"{result.bytes_per_token / 1024:.0f}",
            f"{result.wasted_bytes_per_token / 1024:.0f}",
            f"{1000 * result.stall_s_per_token:.2f}",
            f"{1000 * result.joules_per_token:.3g}",
            f"{result.peak_bytes / MIB:.0f}",
        )
    print_table(table)


def _speed(tokens_per_s: Sequence[float]) -> str:
    """The mean of the repetitions, and their spread."""
    digits = 0 if tokens_per_s[0] >= 1000 else 1
    spread = f" ± {statistics.stdev(tokens_per_s):.{digits}f}" if len(tokens_per_s) > 1 else ""
    return f"{statistics.mean(tokens_per_s):.{digits}f}{spread}"


def _details(result: Measurement) -> Iterator[str]:
    """What few runs have: reads over a network, drafts."""
    if result.far_bytes_per_token or result.tier_bytes_per_token:
        far, near = result.far_bytes_per_token / 1024, result.tier_bytes_per_token / 1024
        yield f"per token {far:.0f} KiB over the network, {near:.0f} from the tier"
    if result.num_drafted:
        yield f"{result.num_accepted} of {result.num_drafted} drafted tokens accepted"
