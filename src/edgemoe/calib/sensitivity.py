"""How much each expert's width matters: predicted for all widths at once, or measured one by one.

The prediction: quantising expert e changes its output; weighted by the router and summed over the tokens
that use it, the squared change is what the layer adds to the residual stream as noise. The divergence that
noise causes is proportional to it, by a factor of the layer that one measurement per layer gives (the layer
at the lowest width, all others untouched).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgemoe.calib.ladder import REFERENCE, WIDTHS, Ladder
from edgemoe.calib.quality import compare
from edgemoe.calib.trace import Trace
from edgemoe.engine.loading import Engine
from edgemoe.native import ExpertWeights, FloatArray, expert_ffn
from edgemoe.store import ExpertKey

# Tokens of the trace on which an expert's output is compared: more change the error by a few per cent.
MAX_TOKENS = 64

Costs = Mapping[ExpertKey, Mapping[str, float]]
Progress = Callable[[int, int], None]


def output_errors(trace: Trace, ladder: Ladder, progress: Progress | None = None) -> Costs:
    """Mean squared change of a layer's output per token of the trace, by expert and width."""
    errors: dict[ExpertKey, dict[str, float]] = {}
    count = len(trace.states)
    for done, key in enumerate(ladder.keys, 1):
        position = trace.catalog.position[key[0]]
        tokens, ranks = np.nonzero(np.asarray(trace.experts[:count, position]) == key[1])
        errors[key] = dict.fromkeys(WIDTHS, 0.0)
        if len(tokens):
            share = len(tokens) / count
            step = max(1, len(tokens) // MAX_TOKENS)
            tokens, ranks = tokens[::step][:MAX_TOKENS], ranks[::step][:MAX_TOKENS]
            x = trace.states[tokens, position].astype(np.float32)
            weights = trace.weights[tokens, position, ranks].astype(np.float32)[:, None]
            exact = weights * _output(ladder, key, REFERENCE, x)
            for name in WIDTHS:
                change = weights * _output(ladder, key, name, x) - exact
                errors[key][name] = share * float((change**2).sum(axis=1).mean())
        if progress is not None:
            progress(done, len(ladder.keys))
    return errors


def _output(ladder: Ladder, key: ExpertKey, name: str, x: FloatArray) -> FloatArray:
    expert: ExpertWeights = ladder.read(key, name)
    activation = ladder.spec.moe(key[0]).expert.activation
    return expert_ffn(x, expert.gate, expert.up, expert.down, activation)


def predicted_divergence(
    errors: Costs,
    ladder: Ladder,
    reference: Engine,
    windows: Sequence[Sequence[int]],
    progress: Progress | None = None,
) -> Costs:
    """The errors in nats per token of divergence, by one measurement for each layer."""
    lowest = WIDTHS[0]
    factors = {}
    layers = ladder.spec.moe_layers
    for done, layer in enumerate(layers, 1):
        members = [key for key in ladder.keys if key[0] == layer]
        engine = ladder.load(dict.fromkeys(members, lowest), reference.memory.context)
        try:
            divergence = compare(reference, engine, windows).mean_divergence
        finally:
            engine.experts.close()
        total = sum(errors[key][lowest] for key in members)
        factors[layer] = divergence / total if total else 0.0
        if progress is not None:
            progress(done, len(layers))
    return {key: {name: factors[key[0]] * e for name, e in row.items()} for key, row in errors.items()}


def measured_divergence(
    ladder: Ladder,
    reference: Engine,
    windows: Sequence[Sequence[int]],
    upper: str,
    progress: Progress | None = None,
) -> Mapping[ExpertKey, float]:
    """The paper's importance (arXiv 2308.14352, section III-B): each expert alone at the lowest width.

    All others have the width ``upper``. One run over the windows for every expert.
    """
    found = {}
    for done, key in enumerate(ladder.keys, 1):
        engine = ladder.load({key: WIDTHS[0]}, reference.memory.context, default=upper)
        try:
            found[key] = compare(reference, engine, windows).mean_divergence
        finally:
            engine.experts.close()
        if progress is not None:
            progress(done, len(ladder.keys))
    return found


def scaled_to(measured: Mapping[ExpertKey, float], errors: Costs) -> Costs:
    """Costs that agree with what was measured at the lowest width, and follow the errors at the others."""
    lowest = WIDTHS[0]
    return {
        key: {name: measured[key] * e / row[lowest] if row[lowest] else 0.0 for name, e in row.items()}
        for key, row in errors.items()
    }
