"""A report of a profile and of the plans made from it, in Markdown and HTML.

Layer x expert maps of what 2 bits would cost and of the widths chosen, and the loss against bytes of uniform
widths, of the paper's ranking and of the knapsack, as the profile predicts it, beside what was measured of
the plans. Needs matplotlib.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgemoe.calib.widths.calibration import MEASURED, read_facts
from edgemoe.calib.widths.ladder import OPTIONS, REFERENCE, UNIFORM, WIDTHS
from edgemoe.calib.widths.measurements import read_values
from edgemoe.calib.widths.planning import by_rank, knapsack
from edgemoe.calib.widths.sensitivity import expert_name, output_errors, predicted_divergence, super_experts
from edgemoe.errors import RequestError
from edgemoe.models import read_spec
from edgemoe.quant import BitPlan, ExpertFormats, format_info, read_plan
from edgemoe.store import ExpertKey, expert_num_bytes, open_store
from edgemoe.units import format_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Points of a predicted curve: enough to look smooth.
NUM_POINTS = 40
_DPI = 130


@dataclass(frozen=True)
class _Facts:
    """What a report is about; sizes in bytes, costs in nats per token."""

    keys: list[ExpertKey]
    sizes: Mapping[ExpertKey, Mapping[ExpertFormats, int]]
    costs: Mapping[ExpertKey, Mapping[ExpertFormats, float]]
    found: Mapping[str, float]
    plans: Mapping[str, BitPlan]
    num_tokens: int

    @property
    def is_exact(self) -> bool:
        """Every expert has been measured alone."""
        return all(f"alone {expert_name(key)}" in self.found for key in self.keys)

    def num_bytes(self, widths: Mapping[ExpertKey, ExpertFormats]) -> int:
        """Of all experts."""
        return sum(self.sizes[key][option] for key, option in widths.items())

    def loss(self, widths: Mapping[ExpertKey, ExpertFormats]) -> float:
        """Predicted divergence."""
        return sum(self.costs[key][option] for key, option in widths.items())


def write_report(profile: Path, plans: Sequence[Path], out: Path) -> None:
    """Make the folder ``out`` with report.md, report.html and pictures.

    Raises:
        RequestError: the profile is unfinished, a plan is of another model, ``out`` exists, or there is no
            matplotlib.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise RequestError("pictures need matplotlib; pip install 'edgemoe[plot]'") from None
    if out.exists():
        raise RequestError(f"{out} exists; choose another folder for the report")
    facts = _read(profile, plans)
    pictures = {"sensitivity.png": _sensitivity(facts), "curves.png": _curves(facts)}
    for name, plan in facts.plans.items():
        pictures[f"widths-{Path(name).stem}.png"] = _widths(facts, plan, name)
    out.mkdir(parents=True)
    for name, figure in pictures.items():
        figure.savefig(out / name, dpi=_DPI)
    text = _text(facts, list(pictures))
    (out / "report.md").write_text(_markdown(text), encoding="utf-8")
    (out / "report.html").write_text(_html(text), encoding="utf-8")


def _read(profile: Path, plans: Sequence[Path]) -> _Facts:
    facts = read_facts(profile)
    spec = read_spec(open_store(profile / REFERENCE).config)
    keys = list(spec.experts())
    found = read_values(profile / MEASURED)
    wanted = [f"layer {layer}" for layer in spec.moe_layers]
    wanted += [
        f"{part} {expert_name(key)} {width}"
        for key in keys
        for part in ("raised", "down")
        for width in WIDTHS
    ]
    if not found.keys() >= set(wanted):
        raise RequestError(f"{profile} is not finished; run `edgemoe profile` again, it goes on where it was")
    sizes = {key: {o: expert_num_bytes(o, *spec.expert_sizes(key[0])) for o in OPTIONS} for key in keys}
    read = {path.name: read_plan(path) for path in plans}
    for name, plan in read.items():
        if not set(plan.overrides) <= set(keys):
            raise RequestError(f"{name} is a plan of another model than {profile}")
    costs = predicted_divergence(output_errors(keys, found), found)
    return _Facts(keys, sizes, costs, found, read, sum(map(len, facts["windows"])))


def _grid(facts: _Facts, values: Mapping[ExpertKey, float]) -> NDArray[np.float64]:
    """Values as layers x experts; layers without experts are left out, absent experts are NaN."""
    layers = sorted({layer for layer, _ in facts.keys})
    grid = np.full((len(layers), max(expert for _, expert in facts.keys) + 1), np.nan)
    for key, value in values.items():
        grid[layers.index(key[0]), key[1]] = value
    return grid


def _map(facts: _Facts, values: Mapping[ExpertKey, float], title: str, label: str, **style: object) -> Figure:
    from matplotlib.figure import Figure

    grid = _grid(facts, values)
    rows, cols = grid.shape
    figure = Figure(figsize=(min(14, 3.5 + 0.16 * cols), min(12, 1.8 + 0.2 * rows)), layout="constrained")
    axes: Axes = figure.subplots()
    image = axes.imshow(grid, aspect="auto", interpolation="nearest", **style)  # type: ignore[arg-type]
    layers = sorted({layer for layer, _ in facts.keys})
    step = max(1, rows // 12)
    axes.set_yticks(range(0, rows, step), [str(layer) for layer in layers[::step]])
    axes.set(title=title, xlabel="expert", ylabel="layer")
    figure.colorbar(image, ax=axes, label=label)
    return figure


def _sensitivity(facts: _Facts) -> Figure:
    if facts.is_exact:
        values = {key: facts.found[f"alone {expert_name(key)}"] for key in facts.keys}
        title = "Each expert alone at 2 bits, measured"
    else:
        values = {key: facts.costs[key][UNIFORM[0]] for key in facts.keys}
        title = "Each expert at 2 bits, predicted"
    floor = max(min((v for v in values.values() if v > 0), default=1e-9), 1e-9)
    logs = {key: float(np.log10(max(value, floor))) for key, value in values.items()}
    return _map(facts, logs, title, "divergence, log10 of nats per token", cmap="viridis")


def _widths(facts: _Facts, plan: BitPlan, name: str) -> Figure:
    values = {}
    for key in facts.keys:
        formats = plan.formats_of(*key).to_json()
        values[key] = sum(format_info(f).bits for f in formats) / len(formats)
    return _map(facts, values, f"Widths of {name}", "bits, mean of matrices", cmap="cividis", vmin=2)


def _curves(facts: _Facts) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes: Axes = figure.subplots()
    for label, style, points in _predicted(facts):
        axes.plot([size / 2**20 for size, _ in points], [loss for _, loss in points], style, label=label)
    for name, plan in facts.plans.items():
        widths = {key: plan.formats_of(*key) for key in facts.keys}
        if "divergence" in plan.origin and all(w in facts.sizes[k] for k, w in widths.items()):
            size = facts.num_bytes(widths) / 2**20
            axes.plot([size], [plan.origin["divergence"]], "*", ms=14, label=f"{name}, measured")
    axes.set(xlabel="experts, MiB", ylabel="divergence, nats per token", yscale="log")
    axes.set_title("Loss against bytes, as the profile predicts it")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    return figure


def _predicted(facts: _Facts) -> list[tuple[str, str, list[tuple[int, float]]]]:
    uniform = [dict.fromkeys(facts.keys, option) for option in UNIFORM]
    low, high = (facts.num_bytes(uniform[i]) for i in (0, -1))
    budgets = np.geomspace(low, high, NUM_POINTS).astype(int).tolist()
    lowest = {key: row[UNIFORM[0]] for key, row in facts.costs.items()}
    alone = {key: facts.found.get(f"alone {expert_name(key)}", lowest[key]) for key in facts.keys}
    rank = by_rank(alone if facts.is_exact else lowest, facts.sizes, UNIFORM)
    plans = {
        "uniform": uniform,
        "paper's ranking": [rank(budget) for budget in budgets],
        "knapsack": [knapsack(facts.costs, facts.sizes, budget) for budget in budgets],
    }
    styles = {"uniform": "o--", "paper's ranking": "-", "knapsack": "-"}
    return [
        (label, styles[label], [(facts.num_bytes(w), facts.loss(w)) for w in chosen])
        for label, chosen in plans.items()
    ]


@dataclass(frozen=True)
class _Text:
    title: str
    lines: list[str]
    header: list[str]
    table: list[list[str]]
    pictures: list[str]


def _text(facts: _Facts, pictures: list[str]) -> _Text:
    named = ", ".join(expert_name(key) for key in super_experts(facts.keys, facts.found)) or "none"
    lines = [
        f"{len(facts.keys)} experts in {len({layer for layer, _ in facts.keys})} layers, profiled on"
        f" {facts.num_tokens} tokens; super experts: {named}."
    ]
    table = []
    for name, plan in facts.plans.items():
        widths = {key: plan.formats_of(*key) for key in facts.keys}
        origin = plan.origin
        is_known = all(w in facts.sizes[k] for k, w in widths.items())
        measured = "interval" in origin
        table.append(
            [
                name,
                str(origin.get("kind", "")),
                format_size(facts.num_bytes(widths)) if is_known else "",
                f"{origin['bits_per_weight']:.2f}" if "bits_per_weight" in origin else "",
                "{:+.2%} ({:+.2%} to {:+.2%})".format(origin["perplexity_increase"], *origin["interval"])
                if measured
                else "",
                f"{origin['divergence']:.4f}" if measured else "",
            ]
        )
    header = ["plan", "method", "experts", "bits per weight", "perplexity (95 %)", "divergence"]
    return _Text("Bit widths", lines, header, table, pictures)


def _markdown(text: _Text) -> str:
    rows = [text.header, ["---"] * len(text.header), *text.table] if text.table else []
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    pictures = "\n\n".join(f"![{Path(name).stem}]({name})" for name in text.pictures)
    return "\n\n".join(part for part in (f"# {text.title}", *text.lines, table, pictures) if part) + "\n"


def _html(text: _Text) -> str:
    def cells(row: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"

    rows = [cells(text.header, "th"), *(cells(row, "td") for row in text.table)] if text.table else []
    pictures = "".join(f'<p><img src="{html.escape(name)}" alt=""></p>' for name in text.pictures)
    style = (
        "body{font:16px sans-serif;max-width:60em;margin:2em auto}img{max-width:100%}td,th{padding:.2em .8em}"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{text.title}</title>'
        f"<style>{style}</style>"
        f"<h1>{text.title}</h1>"
        + "".join(f"<p>{html.escape(line)}</p>" for line in text.lines)
        + (f"<table>{''.join(rows)}</table>" if rows else "")
        + pictures
        + "</html>\n"
    )
