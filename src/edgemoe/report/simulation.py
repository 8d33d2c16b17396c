"""A picture of a simulation: hits and speed of every policy and predictor against the size of the cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgemoe.calib.routing import SimulatedRun
from edgemoe.errors import RequestError


def draw_runs(runs: Sequence[SimulatedRun], path: Path, title: str) -> None:
    """Write a PNG or SVG file, by the ending of ``path``: a line for each policy and predictor.

    Raises:
        RequestError: matplotlib knows no such ending.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(title)
    series: dict[str, list[SimulatedRun]] = {}
    for run in runs:
        name = run.policy if run.predictor == "none" else f"{run.policy}, {run.predictor}"
        series.setdefault(name, []).append(run)
    for axes, field, label in zip(
        figure.subplots(1, 2), ("hit_share", "speed_share"), ("hits", "speed, of resident"), strict=True
    ):
        for name, line in series.items():
            shares = [100 * run.capacity_share for run in line]
            axes.plot(shares, [100 * getattr(run, field) for run in line], "o-", label=name)
        axes.set_xlabel("experts in memory, % of bytes")
        axes.set_ylabel(f"{label}, %")
        axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    try:
        figure.savefig(path, dpi=120)
    except ValueError as error:
        raise RequestError(f"{path}: {error}") from None
