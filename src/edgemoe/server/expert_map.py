"""What every expert did at the newest token, for the page's live map.

The states are read by the engine's thread, between two steps of a layer: nobody else may look at the cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from edgemoe.api import Model
from edgemoe.experts import ExpertCache, LayerEvent

# States of an expert, as the page's colours are numbered.
ABSENT, RESIDENT, HIT, PRELOADED, MISSED = range(5)
EVERY_S = 0.15  # more often nobody can see

Frame = Mapping[str, Any]


class ExpertMap:
    """Observes the layers of one answer, and tells of all experts a few times a second."""

    def __init__(self, model: Model, tell: Callable[[Frame], None]) -> None:
        self._model = model
        self._cache = model.engine.experts.cache
        self._tell = tell
        self._used: list[dict[int, int]] = [{} for _ in self._cache.catalog.layers]
        self._told_s = 0.0

    def layer_runs(self, event: LayerEvent) -> None:
        """Remember how the experts of one layer were found; after the last layer, maybe tell."""
        states = dict.fromkeys(event.hits, HIT) | dict.fromkeys(event.misses, MISSED)
        states |= dict.fromkeys(event.preloaded.intersection(event.hits), PRELOADED)
        self._used[event.position] = states
        now_s = time.monotonic()
        if event.position == len(self._used) - 1 and now_s - self._told_s >= EVERY_S:
            self._told_s = now_s
            self._tell(frame(self._model, self._cache, self._used))


def frame(model: Model, cache: ExpertCache, used: list[dict[int, int]] | None = None) -> Frame:
    """What the page draws: a digit for each expert, layer by layer, and the engine's counts."""
    catalog = cache.catalog
    layers = []
    for position, layer in enumerate(catalog.layers):
        found = used[position] if used else {}
        states = (found.get(e, RESIDENT if e in cache else ABSENT) for e in catalog.experts(position))
        layers.append({"layer": layer, "states": "".join(map(str, states))})
    return {"layers": layers, "stats": asdict(model.stats())}
