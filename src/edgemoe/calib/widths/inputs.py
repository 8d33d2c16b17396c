"""The inputs of every expert, from a trace: its own tokens, and a sample of its layer's for rare experts.

Letters: T tokens, D width.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import xxhash

from edgemoe.calib.trace import Trace, read_trace
from edgemoe.errors import RequestError, TraceError
from edgemoe.models import ModelSpec
from edgemoe.native import FloatArray

# An expert's own tokens, evenly from the trace: more change its gram by less than damping does.
MAX_TOKENS = 4096
# Tokens of the whole layer, run through every expert of it, and how many of the expert's own they count as.
# With the reference model's hundreds of tokens per expert, 16 to 256 differ by 2 % of the error.
NUM_SHARED, SHARED_COUNT = 512, 128.0


class TraceInputs:
    """The inputs of a traced model's experts; see ExpertInputs."""

    def __init__(self, trace: Trace) -> None:
        """Reads the whole trace once, to tell it from others.

        Raises:
            TraceError: a state is not finite.
        """
        self._trace = trace
        digest = xxhash.xxh3_64()
        for array in (trace.experts, trace.weights, trace.states):
            for start in range(0, len(array), MAX_TOKENS):
                rows = np.ascontiguousarray(array[start : start + MAX_TOKENS])
                if not np.isfinite(rows).all():
                    raise TraceError("the trace holds states that are not finite; trace another text")
                digest.update(rows.data)
        self.identity: str = digest.hexdigest()

    def rows(self, layer: int, expert: int) -> tuple[FloatArray, FloatArray]:
        """Inputs (T, D) and what each counts (T,): the router's weight squared, as errors are."""
        trace, position = self._trace, self._trace.catalog.position[layer]
        count = len(trace.states)
        tokens, ranks = np.nonzero(np.asarray(trace.experts[:count, position]) == expert)
        kept = np.linspace(0, len(tokens) - 1, min(len(tokens), MAX_TOKENS)).astype(np.int64)
        shared = np.linspace(0, count - 1, min(count, NUM_SHARED)).astype(np.int64)
        own = trace.weights[tokens[kept], position, ranks[kept]].astype(np.float32) ** 2
        typical = float(np.square(trace.weights[shared, position].astype(np.float32)).mean())
        counts = np.full(len(shared), typical * SHARED_COUNT / len(shared), np.float32)
        x = trace.states[np.concatenate([tokens[kept], shared]), position].astype(np.float32)
        return x, np.concatenate([own, counts])


@lru_cache(maxsize=1)
def inputs_of(folder: Path, written_ns: int) -> TraceInputs:
    """The inputs of a trace that was written then; read once for all widths that a process converts to."""
    return TraceInputs(read_trace(folder))


def read_inputs(folder: Path, spec: ModelSpec) -> TraceInputs:
    """The inputs that a trace folder holds for a model.

    Raises:
        TraceError: the folder is no trace, or is damaged.
        RequestError: it is of another model.
    """
    trace = read_trace(folder)
    sizes = {layer: spec.moe(layer).router.num_experts for layer in spec.moe_layers}
    traced = dict(zip(trace.catalog.layers, trace.num_experts, strict=True))
    if traced != sizes or trace.states.shape[2] != spec.width:
        raise RequestError(f"{folder} is a trace of another model; trace a store of this one")
    return TraceInputs(trace)
