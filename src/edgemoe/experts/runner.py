"""Experts streamed from storage: the ExpertRunner used in production.

Resident experts of a layer are computed while missing ones are read; a missing one is computed as it
arrives; meanwhile the next layers' experts are read ahead. Outputs are summed in a fixed order, so that
what was resident never changes a result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from edgemoe.experts.cache import ExpertCache
from edgemoe.experts.loads import ExpertLayerShape, Loads
from edgemoe.experts.next_use import NextUse
from edgemoe.experts.predictors import NoPredictor, Predictor
from edgemoe.experts.speculation import Pace, Speculation, SpeculationCounts
from edgemoe.native import ExpertLayerOutput, FloatArray, IntArray
from edgemoe.store import ExpertReader, Store


@dataclass(slots=True)
class ExpertCounts:
    """What the experts cost so far: uses of resident and of missing experts, reads, and waiting."""

    hits: int = 0
    misses: int = 0  # not resident when the router spoke, those still being read ahead included
    bytes_read: int = 0
    waited_s: float = 0.0
    speculation: SpeculationCounts = field(default_factory=SpeculationCounts)


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
        verify: str = "first",
        predictor: Predictor | None = None,
        top_k: int = 1,
        pace: Pace | None = None,
        swaps_layers: bool = False,
        next_use: NextUse | None = None,
    ) -> None:
        """``swaps_layers`` reads every expert of a layer, chosen or not: the baseline to be beaten."""
        self._layers = layers
        self._reader = reader
        self._cache = cache
        self._pace = pace or Pace()
        self._loads = Loads(store, reader, cache, layers, verify)
        self._speculation = Speculation(cache, self._loads, predictor or NoPredictor(), top_k, self._pace)
        self._swaps_layers = swaps_layers
        self._next_use = next_use
        self._counts = ExpertCounts(speculation=self._speculation.counts)
        self.observer: LayerObserver | None = None

    @property
    def cache(self) -> ExpertCache:
        """What is resident."""
        return self._cache

    @property
    def counts(self) -> ExpertCounts:
        """Costs so far."""
        self._counts.bytes_read = self._loads.bytes_read
        self._counts.waited_s = self._loads.waited_s
        return self._counts

    def run(self, layer: int, x: FloatArray, expert_ids: IntArray, weights: FloatArray) -> FloatArray:
        """See ExpertRunner."""
        try:
            return self._run(layer, x, expert_ids, weights)
        except BaseException:
            self._loads.abandon()
            self._cache.residency.unpin_all()
            raise

    @property
    def is_reading_ahead(self) -> bool:
        """False while reading ahead rests because it does not pay."""
        return self._speculation.is_on

    def preload(self) -> None:
        """Read experts, in order, as long as the cache has free room."""
        for expert in range(len(self._cache.catalog)):
            if expert in self._cache:
                continue
            if expert in self._loads:
                self._loads.demand(expert)
            elif not self._cache.has_free_room(expert):
                return
            else:
                self._loads.start(expert)
            self._loads.wait([expert])

    def close(self) -> None:
        """Stop the reader; later calls of ``run`` fail."""
        self._reader.close()

    def _run(self, layer: int, x: FloatArray, expert_ids: IntArray, weights: FloatArray) -> FloatArray:
        cache, loads = self._cache, self._loads
        position = cache.catalog.position[layer]
        first = cache.catalog.span(position).start
        if cache.holds_all and self.observer is None and not self._swaps_layers:
            y = self._run_resident(layer, first, x, expert_ids, weights)
            if y is not None:
                return y
        self._pace.layer_begins(len(x), loads.waited_s)
        chosen = cache.statistics.observe(position, expert_ids)
        if self._next_use is not None and not cache.holds_all:
            self._next_use.tell(cache.statistics, position, x, expert_ids, weights)
        loads.poll()
        preloaded = self._speculation.settle(position, chosen)
        wanted = list(cache.catalog.experts(position)) if self._swaps_layers else chosen
        misses = cache.residency.missing(wanted)
        hits = [expert for expert in chosen if expert not in misses] if misses else chosen
        self._counts.hits += len(hits)
        self._counts.misses += len(misses)
        if self.observer is not None:
            self.observer.layer_runs(LayerEvent(position, x, expert_ids, weights, hits, misses, preloaded))
        cache.residency.pin(hits)
        arriving = _Arriving(loads, misses)
        arriving.start()
        if arriving.is_complete:  # else there is no room for more than what is needed now
            self._speculation.start(position, x, expert_ids, weights)
        output = ExpertLayerOutput(x, expert_ids, self._layers[layer].activation)
        self._compute(output, first, hits, arriving)
        while arrived := arriving.wait():
            # All are chosen, but for those that swapping reads besides.
            used = [expert for expert in arrived if expert in chosen]
            cache.residency.pin(used)
            self._compute(output, first, used, arriving)
            arriving.start()
        return output.combine(weights)

    def _run_resident(
        self, layer: int, first: int, x: FloatArray, expert_ids: IntArray, weights: FloatArray
    ) -> FloatArray | None:
        """What is in memory is there for good: nothing to evict, to forecast or to wait for.

        None where a chosen expert has not been read yet.
        """
        cache = self._cache
        chosen = sorted(set(expert_ids.ravel().tolist()))
        experts = {expert: cache.weights(first + expert) for expert in chosen if first + expert in cache}
        if len(experts) < len(chosen):
            return None
        self._counts.hits += len(chosen)
        output = ExpertLayerOutput(x, expert_ids, self._layers[layer].activation)
        output.add_all(experts)
        return output.combine(weights)

    def _compute(
        self,
        output: ExpertLayerOutput,
        first: int,
        experts: list[int],
        arriving: _Arriving,
    ) -> None:
        """Add pinned experts to the output and unpin them."""
        cache = self._cache
        if arriving.is_complete:
            output.add_all({expert - first: cache.weights(expert) for expert in experts})
            cache.residency.unpin(experts)
            return
        for expert in experts:
            output.add(expert - first, cache.weights(expert))
            cache.residency.unpin([expert])
            arriving.start()  # room for the next read comes with every expert that is done


class _Arriving:
    """One layer's missing experts: read as many at a time as there is room for."""

    def __init__(self, loads: Loads, experts: list[int]) -> None:
        self._loads = loads
        self._waiting: list[int] = []
        self._expected: list[int] = []
        for expert in experts:
            if expert in loads:
                loads.demand(expert)
                self._expected.append(expert)
            else:
                self._waiting.append(expert)
        self._waiting.reverse()

    @property
    def is_complete(self) -> bool:
        """Every missing expert is being read."""
        return not self._waiting

    def start(self) -> None:
        """Demand experts while there is room."""
        if not self._waiting:
            return
        while self._waiting and self._loads.start(self._waiting[-1]):
            self._expected.append(self._waiting.pop())
        self._loads.begin()

    def wait(self) -> list[int]:
        """The next experts to be computed, resident by now; none when all have been."""
        while self._waiting and not self._expected:
            # All room is taken by reads on speculation: they must end or be dropped first.
            self._loads.make_room()
            self.start()
        if not self._expected:
            return []
        arrived = self._loads.wait(self._expected)
        self._expected = [expert for expert in self._expected if expert not in arrived]
        return arrived
