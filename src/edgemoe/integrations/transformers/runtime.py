"""Runs a store's experts while torch runs the rest: one cache for all layers of a model.

Letters: T tokens, D width, K chosen, E experts.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import numpy as np

from edgemoe.engine.budget import check_budget, default_budget
from edgemoe.engine.machine import resident_bytes
from edgemoe.engine.memory import ALLOCATOR_MARGIN_BYTES
from edgemoe.engine.storage import tune_depth
from edgemoe.errors import BudgetError, RequestError
from edgemoe.experts import (
    Catalog,
    ExpertCache,
    ExpertCounts,
    ExpertLayerShape,
    Predictor,
    StreamedExperts,
    make_policy,
)
from edgemoe.integrations.transformers.options import StreamOptions
from edgemoe.native import FloatArray, IntArray, LayerPace
from edgemoe.store import Store
from edgemoe.store.expert_modules import ExpertModules, bias_name
from edgemoe.units import MIB, ceil_size, format_size


class ExpertRuntime:
    """Computes the experts of one model's layers from a store. Any number of threads: they take turns."""

    def __init__(self, experts: StreamedExperts, cache_bytes: int) -> None:
        self._experts = experts
        self._turn = threading.Lock()
        self._is_closed = False
        self.cache_bytes = cache_bytes

    @property
    def counts(self) -> ExpertCounts:
        """What the experts have cost so far."""
        return self._experts.counts

    def run(self, layer: int, x: FloatArray, expert_ids: IntArray, weights: FloatArray) -> FloatArray:
        """Weighted sum (T, D) of the outputs of experts (T, K) for x (T, D).

        Raises:
            ExpertReadError, CorruptStoreError: storage failed, or an expert is damaged.
            RequestError: it was closed.
        """
        with self._turn:
            if self._is_closed:
                raise RequestError("the experts of this model were closed; load it again")
            return self._experts.run(layer, x, expert_ids, weights)

    def close(self) -> None:
        """Stop reading; later calls of ``run`` fail."""
        with self._turn:
            if not self._is_closed:
                self._is_closed = True
                self._experts.close()


def open_runtime(
    store: Store,
    modules: ExpertModules,
    options: StreamOptions,
    cache_bytes: int,
    predictor: Predictor,
    top_k: int,
) -> ExpertRuntime:
    """Make the cache, and measure the storage; experts are read when they are first used.

    Raises:
        StoreError: biases are damaged or cannot be read.
    """
    sizes = {key: entry.num_bytes for key, entry in store.manifest.experts.items()}
    cache = ExpertCache(Catalog(sizes), cache_bytes, make_policy(options.policy))
    layers = _layer_shapes(store, modules)
    reader = store.open_expert_reader(options.reader, store.depths[-1])
    try:
        speed = tune_depth(store, reader)
        pace = LayerPace(speed.bytes_per_s, speed.latency_s, speed.handling_s, None)
        experts = StreamedExperts(layers, store, reader, cache, options.verify, predictor, top_k, pace)
    except BaseException:
        reader.close()
        raise
    return ExpertRuntime(experts, cache_bytes)


def plan_cache(
    options: StreamOptions, sizes: Sequence[int], top_k: int, earlier_bytes: int, trunk_bytes: int
) -> int:
    """Bytes of the expert cache: what the budget leaves beside the trunk, which is loaded.

    ``sizes`` are those of all experts, ``earlier_bytes`` what the process held before the trunk came.

    Raises:
        BudgetError: not even one token's experts of a layer have room.
        RequestError: the budget is more than the machine has, or the cache holds no expert.
    """
    if options.cache_bytes is not None and options.cache_bytes < max(sizes):
        raise RequestError(
            f"an expert cache of {format_size(options.cache_bytes)} holds no expert; one takes"
            f" {format_size(max(sizes))}"
        )
    if options.memory_bytes is None:
        budget = default_budget()[0]
    else:
        budget = options.memory_bytes
        check_budget(budget)
    # Weights that are mapped from files count though they have not been touched yet.
    held = max(resident_bytes(), earlier_bytes + trunk_bytes)
    rest = budget - held - options.reserve_bytes - ALLOCATOR_MARGIN_BYTES
    floor = min(top_k * max(sizes), sum(sizes))
    if options.memory_bytes is None and options.cache_bytes is not None:
        rest = options.cache_bytes
    elif rest < floor:
        smallest = -(-(budget - rest + floor) // MIB) * MIB
        raise BudgetError(
            f"{format_size(budget)} leaves no room for experts beside the {format_size(held)} that the"
            f" process holds with the other weights and {format_size(options.reserve_bytes)} in reserve; the"
            f" smallest memory that works is {ceil_size(smallest)}",
            smallest_num_bytes=smallest,
        )
    most = min(rest, sum(sizes), rest if options.cache_bytes is None else options.cache_bytes)
    grain = math.gcd(*sizes)
    return most // grain * grain


def _layer_shapes(store: Store, modules: ExpertModules) -> dict[int, ExpertLayerShape]:
    stored = store.read_dense() if store.manifest.dense else {}
    found = {}
    for layer, module in enumerate(modules.modules):
        biases = None
        if module.has_bias:
            parts = [
                stored[bias_name(layer, p)][: 4 * module.num_experts * module.shape(p)[0]]
                .view(np.float32)
                .reshape(module.num_experts, -1)
                for p in module.projections
            ]
            biases = np.concatenate(parts, axis=1)
        found[layer] = ExpertLayerShape(module.width, module.expert_width, module.activation, biases)
    return found
