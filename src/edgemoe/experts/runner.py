"""Experts streamed from storage: the ExpertRunner used in production.

Resident experts of a layer are computed while missing ones are read; a missing one is computed as it
arrives; meanwhile the next layers are rehearsed and their experts are read ahead. Outputs are summed in a
fixed order, so that what was resident never changes a result. That is compiled, in
``native/experts/stream.cpp``: in Python it took longer than storage did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgemoe import native
from edgemoe.experts.cache import ExpertCache
from edgemoe.experts.loads import Loads
from edgemoe.experts.next_use import NextUse
from edgemoe.experts.predictors import Predictor
from edgemoe.experts.speculation import ForecastRecord, forecast_records, speculate
from edgemoe.native import FloatArray, IntArray, LayerPace, Rehearsal
from edgemoe.store import ExpertReader, Store, traffic_of


@dataclass(frozen=True, slots=True)
class ExpertLayerShape:
    """What the experts of one layer have in common: gate and up are (F, D), down is (D, F)."""

    width: int
    expert_width: int
    activation: str
    biases: FloatArray | None = None  # (E, 2 F + D), as native.expert_ffn takes them


@dataclass(slots=True)  # not frozen: such take four times as long to make, and each step makes several
class ExpertCounts:
    """What the experts cost so far: uses of resident and of missing experts, reads, and waiting."""

    hits: int = 0
    misses: int = 0  # not resident when the router spoke, those still being read ahead included
    bytes_read: int = 0
    waited_s: float = 0.0
    wasted_bytes: int = 0  # read ahead for a layer that chose otherwise
    far_bytes: int = 0  # that came over a network
    tier_bytes: int = 0  # that a local copy of far storage spared it

    def __add__(self, other: ExpertCounts) -> ExpertCounts:
        return ExpertCounts(
            self.hits + other.hits,
            self.misses + other.misses,
            self.bytes_read + other.bytes_read,
            self.waited_s + other.waited_s,
            self.wasted_bytes + other.wasted_bytes,
            self.far_bytes + other.far_bytes,
            self.tier_bytes + other.tier_bytes,
        )

    def __sub__(self, other: ExpertCounts) -> ExpertCounts:
        return ExpertCounts(
            self.hits - other.hits,
            self.misses - other.misses,
            self.bytes_read - other.bytes_read,
            self.waited_s - other.waited_s,
            self.wasted_bytes - other.wasted_bytes,
            self.far_bytes - other.far_bytes,
            self.tier_bytes - other.tier_bytes,
        )


@dataclass(frozen=True, slots=True)
class LayerEvent:
    """One layer's experts are about to run. Experts by their number in the catalog."""

    position: int
    x: FloatArray  # (T, D), what the router saw
    expert_ids: IntArray  # (T, K)
    weights: FloatArray  # (T, K)
    hits: list[int]
    misses: list[int]
    preloaded: set[int]  # of both: what was read ahead for this layer


class LayerObserver(Protocol):
    """Told of every layer as it runs: to record traces, or to show them."""

    def layer_runs(self, event: LayerEvent) -> None:
        """May keep nothing of the event's arrays without copying them."""
        ...


class StreamedExperts:
    """Computes experts from a cache that is filled on demand and ahead of it; see ExpertRunner."""

    def __init__(
        self,
        layers: Mapping[int, ExpertLayerShape],
        store: Store,
        reader: ExpertReader,
        cache: ExpertCache,
        verify: str,
        predictor: Predictor,
        top_k: int,
        pace: LayerPace,
        swaps_layers: bool = False,
        next_use: NextUse | None = None,
        max_rehearsed: int = native.MAX_REHEARSED,
    ) -> None:
        """``swaps_layers`` reads every expert of a layer, chosen or not: the baseline to be beaten.

        Up to ``max_rehearsed`` layers are rehearsed by one that waits for storage.
        """
        self._reader = reader
        self._cache = cache
        self._loads = Loads(store, reader, cache, verify)
        catalog = cache.catalog
        self._speculation = speculate(
            catalog, cache.residency, self._loads, predictor, top_k, pace, max_rehearsed
        )
        layouts = []
        for key in catalog.keys:
            formats, shape = store.manifest.experts[key].formats, layers[key[0]]
            layouts.append((formats.gate, formats.up, formats.down, shape.width, shape.expert_width))
        heads = next_use.heads if next_use is not None else {}
        positions = self._positions = catalog.position
        activations = [
            (layers[layer].activation, layers[layer].biases, heads.get(positions[layer]))
            for layer in positions
        ]
        self._stream = native.ExpertStream(
            cache.statistics, cache, self._loads, layouts, activations, swaps_layers
        )
        self.observer: LayerObserver | None = None

    @property
    def cache(self) -> ExpertCache:
        """What is resident."""
        return self._cache

    @property
    def counts(self) -> ExpertCounts:
        """Costs so far."""
        stream, loads, ahead = self._stream, self._loads, self._speculation
        traffic = traffic_of(self._reader)
        return ExpertCounts(
            stream.num_hits,
            stream.num_misses,
            loads.bytes_read,
            loads.waited_s,
            0 if ahead is None else ahead.wasted_bytes,
            traffic.far_bytes,
            traffic.tier_bytes,
        )

    def run(
        self,
        layer: int,
        x: FloatArray,
        expert_ids: IntArray,
        weights: FloatArray,
        rehearse: Rehearsal | None = None,
        seen: FloatArray | None = None,
    ) -> FloatArray:
        """See ExpertRunner."""
        position = self._positions[layer]
        out = np.empty_like(x)
        if seen is None:
            seen = x
        observe = None
        if self.observer is not None:
            observe = _telling(self.observer, position, seen, expert_ids, weights)
        ahead = self._speculation
        try:
            self._stream.run(position, seen, expert_ids, weights, x, out, ahead, rehearse, observe)
        except native.LoadFailed as failure:
            raise self._loads.error(failure) from None
        return out

    @property
    def is_reading_ahead(self) -> bool:
        """False while reading ahead rests because it does not pay."""
        return self._speculation is not None and self._speculation.is_on

    def forecast_records(self, distance: int) -> list[ForecastRecord]:
        """How forecasts held, by position; ``distance`` as in ``native.speculation``."""
        return [] if self._speculation is None else forecast_records(self._speculation, distance)

    def preload(self) -> None:
        """Read experts, in order, as long as the cache has free room."""
        for expert in range(len(self._cache.catalog)):
            if expert in self._cache:
                continue
            if expert in self._loads:
                self._loads.demand(expert)
            elif not self._cache.residency.has_room(expert):
                return
            else:
                self._loads.start(expert)
            self._loads.wait([expert])

    def close(self) -> None:
        """Stop the reader; later calls of ``run`` fail."""
        self._reader.close()
        self._loads.keep_checksums()


def _telling(
    observer: LayerObserver, position: int, x: FloatArray, expert_ids: IntArray, weights: FloatArray
) -> Callable[[list[int], list[int], list[int]], None]:
    def observe(hits: list[int], misses: list[int], preloaded: list[int]) -> None:
        event = LayerEvent(position, x, expert_ids, weights, hits, misses, set(preloaded))
        observer.layer_runs(event)

    return observe
