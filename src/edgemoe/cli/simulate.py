"""``edgemoe simulate``: what policies and predictors would do on a trace, without running the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemoe.cli.options import JsonOption, refuse_folder_of, refuse_without
from edgemoe.cli.output import count_progress, new_table, print_json, print_table, say
from edgemoe.errors import RequestError

if TYPE_CHECKING:
    from edgemoe.calib.routing import SimulatedRun
    from edgemoe.calib.trace import Trace
    from edgemoe.experts import NextUse, Predictor
    from edgemoe.store import Store


def simulate(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="Folder made by trace.")],
    capacity: Annotated[
        str, typer.Option("--capacity", metavar="P%,...", help="Share of the experts' bytes in memory.")
    ] = "10%,25%,50%",
    policy: Annotated[
        str, typer.Option("--policy", metavar="NAME,...", help="Eviction policies, or all of them.")
    ] = "all",
    predictor: Annotated[
        str,
        typer.Option("--predictor", metavar="NAME,...", help="Predictors, or all; those need --store."),
    ] = "none",
    store: Annotated[
        Path | None,
        typer.Option(
            "--store",
            metavar="STORE",
            help="Store whose predictors and policy forecast are meant.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", metavar="NAME", help="Device profile of the storage.")
    ] = "nvme",
    layer_ms: Annotated[
        float, typer.Option("--layer-ms", metavar="MS", min=0.0, help="Computing of one layer for a token.")
    ] = 1.0,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", metavar="N", min=1, help="Only the first N tokens.")
    ] = 2000,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE", help="Draw hits and speed (PNG, SVG).", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    r"""Replay a trace with eviction policies and predictors.

    Beside them stands Belady's optimum, which knows the future.

    \b
    edgemoe simulate book.trace --capacity 10%,25%,50% --policy all
    edgemoe simulate book.trace --policy forecast --predictor all --store qwen.store --device rpi4-sd
    edgemoe simulate book.trace --layer-ms 2.5 --picture caching.png
    """
    from edgemoe.calib.routing import BELADY, Setting
    from edgemoe.calib.routing import simulate as simulate_one
    from edgemoe.calib.trace import read_trace
    from edgemoe.experts import NoPredictor
    from edgemoe.store import find_device

    if picture is not None:
        refuse_without("matplotlib", "--picture", "plot")
        refuse_folder_of(picture)
    traced = read_trace(trace).of_steps()
    opened = None if store is None else _open_traced(store, traced)
    policies, next_use = _policies(policy, opened)
    predictors = _predictors(predictor, opened)
    num_tokens = min(max_tokens, traced.num_tokens)
    setting = Setting(traced, num_tokens, find_device(device), layer_ms / 1000, next_use)
    plan = [
        (share, name, predicted)
        for share in _shares(capacity)
        for name, predicted in [(BELADY, "none"), *((p, q) for p in policies for q in predictors)]
    ]
    runs: list[SimulatedRun] = []
    try:
        with count_progress("replaying", "runs") as advance:
            for share, name, predicted in plan:
                runs.append(
                    simulate_one(setting, share, name, predictors.get(predicted, NoPredictor()), predicted)
                )
                advance(len(runs), len(plan))
    finally:  # what was replayed stays, whatever ends the rest
        if as_json and runs:
            print_json({"trace": str(trace), "device": device, "runs": [run.to_json() for run in runs]})
        elif runs:
            _print_runs(runs, setting.num_tokens)
    if picture is not None:  # after the results, which an error here must not take away
        _draw(runs, picture, f"{trace.name}, {setting.num_tokens} tokens, {device}")
        say(f"wrote {picture}")


def _shares(text: str) -> list[float]:
    try:
        shares = [float(part.strip().removesuffix("%")) / 100 for part in text.split(",")]
    except ValueError:
        shares = []
    if not shares or not all(0 < share <= 1 for share in shares):
        raise RequestError(f"--capacity {text!r}: give shares of the experts such as 10%,25%,50%")
    return shares


def _names(text: str, known: list[str], what: str) -> list[str]:
    if text == "all":
        return known
    names = [part.strip() for part in text.split(",")]
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise RequestError(f"no {what} {unknown!r}; choose all, or some of {', '.join(known)}")
    return names


def _open_traced(path: Path, trace: Trace) -> Store:
    from edgemoe.engine.stored_weights import check_store
    from edgemoe.models import read_spec
    from edgemoe.store import open_store

    store = open_store(path)
    spec = read_spec(store.config)
    check_store(spec, store)
    if [spec.moe(layer).router.num_experts for layer in spec.decoder_moe_layers] != trace.num_experts:
        raise RequestError(f"{path}: not the store that was traced")
    return store


def _policies(text: str, store: Store | None) -> tuple[list[str], NextUse | None]:
    """The policies asked for, and what "forecast" asks; it is none of "all" where nothing was fitted."""
    from edgemoe.engine.prediction import build_next_use
    from edgemoe.experts import FORECAST, POLICIES
    from edgemoe.models import read_spec

    names = _names(text, list(POLICIES), "policy")
    next_use = None if store is None else build_next_use(read_spec(store.config), store, FORECAST)
    if next_use is None and FORECAST in names:
        if text != "all":
            raise RequestError("the policy 'forecast' needs --store, a store that `edgemoe fit` has run on")
        names.remove(FORECAST)
        say("without the policy 'forecast', which needs --store, a store that `edgemoe fit` has run on")
    return names, next_use


def _predictors(text: str, store: Store | None) -> dict[str, Predictor]:
    """The predictors asked for; all but "none" are those of a store."""
    from edgemoe.engine.prediction import PREDICTORS, build_predictor, choose_predictor
    from edgemoe.engine.stored_weights import read_dense_weights
    from edgemoe.experts import NoPredictor
    from edgemoe.models import read_spec

    names = _names(text, [name for name in PREDICTORS if name != "auto"], "predictor")
    if names == ["none"]:
        return {"none": NoPredictor()}
    if store is None:
        raise RequestError("--predictor needs --store, the store that was traced")
    spec = read_spec(store.config)
    weights = read_dense_weights(spec, store)
    return {n: build_predictor(spec, weights, store, choose_predictor(store, n)) for n in names}


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


def _draw(runs: list[SimulatedRun], path: Path, title: str) -> None:
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
        raise RequestError(f"--picture {path}: {error}") from None
