"""How much each expert's width matters: predicted for all widths at once, or measured one by one.

The prediction: quantising expert e changes its output; weighted by the router and summed over the tokens
that use it, the squared change is what the layer adds to the residual stream as noise. Changes of gate and
up and of down add up. The divergence that noise causes is proportional to it, by a factor of the layer that
one measurement per layer gives (the layer at the lowest width, all others untouched).

Numbers have names: ``raised 3.7 q2`` and ``down 3.7 q2`` are the
errors of expert 7 of layer 3, ``peak 3.7`` its largest output, ``layer 3`` a divergence, ``alone 3.7`` one of
an expert; ``fast_s`` and ``exact_s`` before a name say how many seconds it took.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgemoe.calib.trace import Trace
from edgemoe.calib.widths.ladder import OPTIONS, UNCHANGED, UNIFORM, WIDTHS, Ladder
from edgemoe.calib.widths.planning import Costs
from edgemoe.quant import ExpertFormats
from edgemoe.store import ExpertKey

# Tokens of the trace on which an expert's output is compared: more change the error by a few per cent.
MAX_TOKENS = 128
LOWEST = UNIFORM[0]
# Experts whose largest output is this many times the median of their layer carry activations that the whole
# model rests on (arXiv 2507.23279 finds a handful in each model): a plan leaves them at the highest width.
SUPER_RATIO = 30.0

Errors = Costs[ExpertFormats]


def expert_name(key: ExpertKey) -> str:
    """``layer.expert``."""
    return f"{key[0]}.{key[1]}"


def output_numbers(trace: Trace, ladder: Ladder, key: ExpertKey) -> dict[str, float]:
    """An expert's errors and peak, by name: squared change of the layer's output per token of the trace."""
    name, position = expert_name(key), trace.catalog.position[key[0]]
    parts: dict[str, Callable[[str], ExpertFormats]] = {
        "raised": lambda width: replace(UNCHANGED, gate=width, up=width),
        "down": lambda width: replace(UNCHANGED, down=width),
    }
    row = {f"{part} {name} {width}": 0.0 for part in parts for width in WIDTHS}
    count = len(trace.states)
    tokens, ranks = np.nonzero(np.asarray(trace.experts[:count, position]) == key[1])
    if not len(tokens):
        return {**row, f"peak {name}": 0.0}
    share = len(tokens) / count
    kept = np.linspace(0, len(tokens) - 1, min(len(tokens), MAX_TOKENS)).astype(np.int64)
    tokens, ranks = tokens[kept], ranks[kept]
    x = trace.states[tokens, position].astype(np.float32)
    weights = trace.weights[tokens, position, ranks].astype(np.float32)[:, None]
    exact = weights * ladder.output(key, UNCHANGED, x)
    for part, formats in parts.items():
        for width in WIDTHS:
            change = weights * ladder.output(key, formats(width), x) - exact
            row[f"{part} {name} {width}"] = share * float((change**2).sum(axis=1).mean())
    return {**row, f"peak {name}": float(np.abs(exact).max())}


def output_errors(keys: Sequence[ExpertKey], found: Mapping[str, float]) -> Errors:
    """What was measured of the outputs, for every option."""
    return {
        key: {
            option: found[f"raised {expert_name(key)} {option.up}"]
            + found[f"down {expert_name(key)} {option.down}"]
            for option in OPTIONS
        }
        for key in keys
    }


def predicted_divergence(errors: Errors, found: Mapping[str, float]) -> Errors:
    """The errors in nats per token, by what was measured of the layers."""
    totals: dict[int, float] = {}
    for key, row in errors.items():
        totals[key[0]] = totals.get(key[0], 0.0) + row[LOWEST]
    factors = {layer: found[f"layer {layer}"] / total if total else 0.0 for layer, total in totals.items()}
    return {key: {option: factors[key[0]] * e for option, e in row.items()} for key, row in errors.items()}


def scaled_to(measured: Mapping[ExpertKey, float], errors: Errors) -> Errors:
    """Costs that agree with what was measured at the lowest width, and follow the errors at the others."""
    return {
        key: {option: measured[key] * e / row[LOWEST] if row[LOWEST] else 0.0 for option, e in row.items()}
        for key, row in errors.items()
    }


def measured_alone(keys: Sequence[ExpertKey], found: Mapping[str, float]) -> dict[ExpertKey, float]:
    """What was measured of each expert alone."""
    return {key: found[f"alone {expert_name(key)}"] for key in keys}


def seconds(found: Mapping[str, float], method: str) -> float:
    """What ``fast`` or ``exact`` took, all runs together."""
    return sum(value for name, value in found.items() if name.startswith(f"{method}_s "))


def super_experts(keys: Sequence[ExpertKey], found: Mapping[str, float]) -> list[ExpertKey]:
    """Experts whose largest output stands far above those of their layer."""
    chosen = []
    for layer in sorted({layer for layer, _ in keys}):
        peaks = {key: found[f"peak {expert_name(key)}"] for key in keys if key[0] == layer}
        limit = SUPER_RATIO * float(np.median(list(peaks.values())))
        chosen += [key for key, peak in peaks.items() if peak > limit > 0]
    return chosen


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's: 1 when both put things in the same order, 0 when the orders have nothing in common."""
    centred = [np.argsort(np.argsort(values)) - (len(values) - 1) / 2 for values in (a, b)]
    return float(centred[0] @ centred[1] / (centred[0] @ centred[0]))
