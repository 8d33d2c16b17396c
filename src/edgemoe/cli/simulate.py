"""``edgemoe simulate``: what policies and predictors would do on a trace, without running the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemoe.cli.given import refuse_without
from edgemoe.cli.groups import with_groups
from edgemoe.cli.options import JsonOption, unset
from edgemoe.cli.output import new_table, print_json, print_table, say, show_steps
from edgemoe.errors import RequestError

if TYPE_CHECKING:
    from edgemoe.calib.routing import SimulatedRun
    from edgemoe.workflows.simulate import SimulateOptions


@dataclass(frozen=True)
class SettingArguments:
    """What the trace is replayed with."""

    capacity: Annotated[
        str,
        typer.Option("--capacity", metavar="P%,...", help="Shares of the experts' bytes that fit in memory."),
    ] = "10%,25%,50%"
    policy: Annotated[
        str, typer.Option("--policy", metavar="NAME,...", help="Eviction policies, or all.")
    ] = "all"
    predictor: Annotated[
        str,
        typer.Option("--predictor", metavar="NAME,...", help="Predictors, or all; they need --store."),
    ] = "none"
    store: Annotated[
        Path | None,
        unset(
            "--store",
            "STORE",
            'Store that was traced: its predictors, and what its policy "forecast" has learnt.',
        ),
    ] = None
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="NAME",
            help="Storage to imitate: nvme, jetson-tx2-ssd, jetson-tx2-usb, rpi4-sd or network.",
        ),
    ] = "nvme"
    layer_ms: Annotated[
        float,
        typer.Option(
            "--layer-ms", metavar="MS", min=0.0, help="Milliseconds of computing per layer and token."
        ),
    ] = 1.0
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", metavar="N", min=1, help="Use only the first N tokens.")
    ] = 2000

    def options(self) -> SimulateOptions:
        """As the simulation takes them."""
        from edgemoe.workflows.simulate import SimulateOptions

        return SimulateOptions(
            shares=_shares(self.capacity),
            policies=_names(self.policy),
            predictors=_names(self.predictor),
            store=self.store,
            device=self.device,
            layer_s=self.layer_ms / 1000,
            max_tokens=self.max_tokens,
        )


@with_groups
def simulate(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="Folder made by trace.")],
    setting: SettingArguments,
    picture: Annotated[
        Path | None,
        unset("--picture", "FILE", "Draw hits and speed into this PNG or SVG file."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    r"""Replay a trace with other eviction policies and predictors; no model runs.

    An eviction policy says which expert leaves memory for another. A predictor says which experts to read
    before they are asked for. Hits are compared with Belady's optimum, which knows the future: no policy can
    have more.

    \b
    edgemoe simulate book.trace --capacity 10%,25%,50% --policy all
    edgemoe simulate book.trace --policy forecast --predictor all --store qwen.store --device rpi4-sd
    edgemoe simulate book.trace --layer-ms 2.5 --picture caching.png
    """
    from edgemoe.workflows.outputs import refuse_folder_of
    from edgemoe.workflows.simulate import Simulation

    if picture is not None:
        refuse_without("matplotlib", "--picture", "plot")
        refuse_folder_of(picture)
    options = setting.options()
    simulation = Simulation(trace, options, say)
    runs: list[SimulatedRun] = []
    try:
        runs.extend(simulation.run(show_steps))
    finally:  # what was replayed stays, whatever ends the rest
        if as_json and runs:
            print_json(
                {"trace": str(trace), "device": options.device, "runs": [run.to_json() for run in runs]}
            )
        elif runs:
            _print_runs(runs, simulation.num_tokens)
    if picture is not None:  # after the results, which an error here must not take away
        from edgemoe.report import draw_runs

        draw_runs(runs, picture, f"{trace.name}, {simulation.num_tokens} tokens, {options.device}")
        say(f"wrote {picture}")


def _shares(text: str) -> list[float]:
    try:
        shares = [float(part.strip().removesuffix("%")) / 100 for part in text.split(",")]
    except ValueError:
        shares = []
    if not shares or not all(0 < share <= 1 for share in shares):
        raise RequestError(f"--capacity {text!r}: give shares of the experts such as 10%,25%,50%")
    return shares


def _names(text: str) -> str | list[str]:
    return text if text == "all" else [part.strip() for part in text.split(",")]


def _print_runs(runs: list[SimulatedRun], num_tokens: int) -> None:
    table = new_table(
        f"{num_tokens} tokens; per token KiB read, KiB wasted and ms of stall",
        *("policy", "predictor", "memory", "hits", "belady", "read", "wasted", "stall", "speed", "bound"),
        is_narrow=True,
    )
    for run in runs:
        table.add_row(
            *(run.policy, run.predictor, f"{run.capacity_share:.0%}", f"{run.hit_share:.1%}"),
            *(f"{run.share_of_belady:.1%}", f"{run.bytes_read / 1024:.0f}"),
            *(f"{run.wasted_bytes / 1024:.0f}", f"{1000 * run.stall_s:.2f}"),
            *(f"{run.speed_share:.1%}", f"{run.bound_ratio:.2f}x"),
        )
    print_table(table)
    print("memory: share of the experts' bytes; belady: hits as a share of those of Belady's optimum;")
    print("speed: share of that with all experts in memory; bound: time over the larger of computing")
    print("and reading what Belady's optimum reads")
