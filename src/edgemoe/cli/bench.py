"""``edgemoe bench``: how fast a store runs, compared with ways of running it without this engine's parts."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemoe.cli.given import only_one, read_text
from edgemoe.cli.options import DraftOption, JsonOption, MemoryOption, ThreadsOption, TierOption
from edgemoe.cli.output import count_progress, new_table, print_json, print_table

if TYPE_CHECKING:
    from edgemoe.bench import Measurement


def bench(
    stores: Annotated[
        list[Path],
        typer.Argument(metavar="STORE", help="Stores, such as one of 4 bits beside one of mixed."),
    ],
    mode: Annotated[
        str,
        typer.Option("--mode", metavar="NAME,...", help="resident, on-demand, swap, cache, full, or all."),
    ] = "full",
    memory: MemoryOption = None,
    cache: Annotated[
        str | None,
        typer.Option(
            "--cache",
            metavar="SIZE|P%",
            help="Cap on the expert cache within the memory, also as a share of all experts.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="NAME",
            help="Slow storage down to jetson-tx2-ssd, jetson-tx2-usb, rpi4-sd, nvme or network; where a"
            " cgroup can be made, it also bounds every other read, and --memory.",
            show_default=False,
        ),
    ] = None,
    num_prompt: Annotated[
        int, typer.Option("--n-prompt", "-p", metavar="N", min=0, help="Tokens of the prompt test; 0: none.")
    ] = 512,
    num_written: Annotated[
        int, typer.Option("--n-gen", "-n", metavar="N", min=0, help="Tokens of the writing test; 0: none.")
    ] = 128,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            "--text",
            metavar="FILE",
            help="Also time following this text, token by token.",
            show_default=False,
        ),
    ] = None,
    num_repeats: Annotated[
        int, typer.Option("--repetitions", "-r", metavar="N", min=1, help="Times that each test is run.")
    ] = 3,
    num_threads: ThreadsOption = None,
    tier: TierOption = None,
    draft: DraftOption = "none",
    as_json: JsonOption = False,
) -> None:
    r"""Time reading a prompt (test pp512), writing (tg128), following a text.

    Modes: resident has every expert in memory; on-demand reads what a router asks for and keeps nothing;
    swap reads whole layers; cache keeps experts; full reads ahead as well. With an encoder the first half of
    the text is the prompt.

    \b
    edgemoe bench qwen.store --memory 6GiB
    edgemoe bench qwen.store --cache 25% --mode all --device jetson-tx2-ssd --text book.txt
    edgemoe bench q8.store q4.store --mode on-demand -p 0
    edgemoe bench qwen.store --draft text --text code.py -p 0 -n 512
    """
    from edgemoe.bench import MODES, BenchOptions, time_stores

    followed = only_one(text, "--text")
    options = BenchOptions(
        modes=tuple(MODES) if mode == "all" else tuple(name.strip() for name in mode.split(",")),
        memory=memory,
        cache=cache,
        device=device,
        num_prompt=num_prompt,
        num_written=num_written,
        text=None if followed is None else read_text(followed),
        num_repeats=num_repeats,
        num_threads=num_threads,
        tier=tier,
        draft=draft,
    )
    results: list[Measurement] = []
    try:
        with count_progress("timing", "modes") as advance:
            for done, measured in enumerate(time_stores(stores, options), 1):
                results += measured
                advance(done, len(stores) * len(options.modes))
    finally:  # what was timed stays, whatever ends the rest
        if as_json and results:
            print_json({"device": device, "results": [result.to_json() for result in results]})
        elif results:
            _print_results(results)


def _print_results(results: list[Measurement]) -> None:
    from edgemoe.units import MIB

    names = list(dict.fromkeys(Path(result.store).name for result in results))
    told_apart = len(names) > 1
    table = new_table(
        ("" if told_apart else f"{names[0]}: ")
        + "tokens per second; per token KiB read, KiB wasted, ms waiting, mJ ("
        + f"{results[0].energy_source})",
        *(("store",) if told_apart else ()),
        *("mode", "test", "t/s", "hits", "read", "wasted", "wait", "mJ", "peak MiB"),
        is_narrow=True,
    )
    for result in results:
        rates = result.tokens_per_s
        digits = 0 if rates[0] >= 1000 else 1
        spread = f" ± {statistics.stdev(rates):.{digits}f}" if len(rates) > 1 else ""
        table.add_row(
            *((Path(result.store).name,) if told_apart else ()),
            *(result.mode, result.test),
            f"{statistics.mean(rates):.{digits}f}{spread}",
            f"{result.hit_share:.1%}",
            f"{result.bytes_per_token / 1024:.0f}",
            f"{result.wasted_bytes_per_token / 1024:.0f}",
            f"{1000 * result.stall_s_per_token:.2f}",
            f"{1000 * result.joules_per_token:.3g}",
            f"{result.peak_bytes / MIB:.0f}",
        )
    print_table(table)
    for result in results:
        if result.far_bytes_per_token or result.tier_bytes_per_token:
            far, near = result.far_bytes_per_token / 1024, result.tier_bytes_per_token / 1024
            print(f"{result.mode} {result.test}: per token {far:.0f} KiB from afar, {near:.0f} from the tier")
        if result.num_drafted:
            share = f"{result.num_accepted} of {result.num_drafted} drafted tokens accepted"
            print(f"{result.mode} {result.test}: {share}")
    for how in dict.fromkeys(result.bounded_by for result in results if result.bounded_by):
        print(f"storage bounded by {how}")
