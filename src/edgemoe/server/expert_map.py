"""What every expert did at the newest token, for the page's live map.

The states are read by the engine's thread, between two steps of a layer: nobody else may look at the cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from edgemoe.api import Model
from edgemoe.experts import ExpertCache, LayerEvent

# States of an expert, as the page's colours are numbered.
ABSENT, RESIDENT, HIT, PRELOADED, MISSED = range(5)
EVERY_S = 0.15  # more often nobody can see

Frame = Mapping[str, Any]


class ExpertMap:
    """Observes the layers of one answer, and tells of all experts a few times a second and at its end."""

    def __init__(self, model: Model, tell: Callable[[Frame], None]) -> None:
        self._model = model
        self._cache = model.engine.experts.cache
        self._tell = tell
        self._used: list[Mapping[int, int]] = [{} for _ in self._cache.catalog.layers]
        self._resident: frozenset[int] = frozenset()
        self._told_s = 0.0
        self._is_told = True

    def layer_runs(self, event: LayerEvent) -> None:
        """Remember how the experts of one layer were found; after the last layer, maybe tell."""
        states = dict.fromkeys(event.hits, HIT) | dict.fromkeys(event.misses, MISSED)
        states |= dict.fromkeys(event.preloaded.intersection(event.hits), PRELOADED)
        self._used[event.position] = states
        if event.position < len(self._used) - 1:
            return
        now_s = time.monotonic()
        self._is_told = now_s - self._told_s >= EVERY_S
        if self._is_told:
            self._told_s, self._resident = now_s, resident(self._cache)
            self._tell(frame(self._model, self._resident, self._used))

    def finish(self) -> None:
        """The answer has ended: tell of its newest token. What is in memory is what was told of last."""
        if not self._is_told:
            self._tell(frame(self._model, self._resident, self._used))


def resident(cache: ExpertCache) -> frozenset[int]:
    """The experts in memory."""
    catalog = cache.catalog
    return frozenset(e for p in range(len(catalog.layers)) for e in catalog.experts(p) if e in cache)


def frame(model: Model, in_memory: Collection[int], used: Sequence[Mapping[int, int]] = ()) -> Frame:
    """What the page draws: a digit for each expert, layer by layer, and the engine's counts."""
    catalog = model.engine.experts.cache.catalog
    layers = []
    for position, layer in enumerate(catalog.layers):
        found = used[position] if used else {}
        states = (found.get(e, RESIDENT if e in in_memory else ABSENT) for e in catalog.experts(position))
        layers.append({"layer": layer, "states": "".join(map(str, states))})
    return {"layers": layers, "stats": asdict(model.stats())}
