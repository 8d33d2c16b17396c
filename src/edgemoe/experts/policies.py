"""Which resident expert leaves when another needs its place.

A policy sees how experts have been used and says what each candidate is worth; the lowest leaves first.
It is never asked about experts in use. Letters: N experts in all, S layers that have experts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgemoe.errors import RequestError
from edgemoe.experts.catalog import Catalog, Index

Worth = NDArray[np.float64]
# Tokens after which a use counts half: long enough to know an expert's popularity in a text, short enough
# to forget the text before. Chosen by simulation on held-out text, see docs/streaming.md.
HALF_LIFE_TOKENS = 32


class UseStatistics:
    """How often and when each expert was used, and which layer is running. Adapts to the text."""

    def __init__(self, catalog: Catalog, half_life_tokens: float = HALF_LIFE_TOKENS) -> None:
        self.catalog = catalog
        self._keep = 0.5 ** (1 / half_life_tokens)
        self.frequency: Worth = np.zeros(len(catalog))  # uses per token, decayed
        self.expected: Worth = np.zeros(len(catalog))  # uses by the next token, 0 where nothing was forecast
        self.last_use: Worth = np.full(len(catalog), -1.0)  # by `clock`
        self.clock = 0  # layers run so far
        self.position = 0  # of the layer that is running
        self._layers_until: dict[int, Index] = {}  # of all experts, by the position that is running

    def observe(self, position: int, used: Sequence[int], counts: Sequence[int], num_tokens: int) -> None:
        """The layer at ``position`` runs: ``counts`` of its tokens chose the experts ``used``."""
        self.position = position
        self.clock += 1
        keep = self._keep**num_tokens
        self.frequency[self.catalog.span(position)] *= keep
        share = (1 - keep) / num_tokens
        # One by one: for the few experts of a token, indexing by an array takes several times as long.
        for expert, count in zip(used, counts, strict=True):
            self.frequency[expert] += count * share
            self.last_use[expert] = self.clock

    def expect(self, position: int, uses: NDArray[Any]) -> None:
        """A forecast of which experts of a layer the next token will use: a probability for each."""
        self.expected[self.catalog.span(position)] = uses

    def layers_until(self, candidates: Index) -> Index:
        """Layers until each expert's layer runs next: 1 for the next one, L for the present one.

        S for what does not run again before the next prompt.
        """
        layers = self._layers_until.get(self.position)
        if layers is None:
            layers = self._layers_until[self.position] = self._count_layers()
        return layers[candidates]

    def _count_layers(self) -> Index:
        catalog, positions = self.catalog, self.catalog.layer_position
        if self.position < catalog.first_step:
            return np.where(positions > self.position, positions - self.position, catalog.num_layers)
        steps: Index = (positions - self.position - 1) % catalog.num_step_layers + 1
        if catalog.first_step:
            steps = np.where(positions < catalog.first_step, catalog.num_layers, steps)
        return steps

    def is_over(self, position: int) -> bool:
        """Whether the layer at a position has run for this prompt and will not for this answer."""
        return position < self.catalog.first_step and position < self.position

    def num_over(self) -> int:
        """Experts of such layers: the first ones of the catalog."""
        return self.catalog.experts(min(self.position, self.catalog.first_step)).start


class EvictionPolicy(Protocol):
    """Says what keeping an expert is worth. ``depends_on_layer``: also on which layer is running."""

    depends_on_layer: bool

    def worth(self, statistics: UseStatistics, candidates: Index) -> Worth:
        """One value per candidate; the lowest leaves first."""
        ...


class LRU:
    """The least recently used leaves first."""

    depends_on_layer = False

    def worth(self, statistics: UseStatistics, candidates: Index) -> Worth:
        """See EvictionPolicy."""
        return statistics.last_use[candidates]


class LFU:
    """The least frequently used leaves first; of equals, the less recently used."""

    depends_on_layer = False

    def worth(self, statistics: UseStatistics, candidates: Index) -> Worth:
        """See EvictionPolicy."""
        recency = statistics.last_use[candidates] / (statistics.clock + 1)
        return statistics.frequency[candidates] + 1e-9 * recency


class LFRU:
    """Frequency over the tokens since the last use: what is neither frequent nor recent leaves first."""

    depends_on_layer = False

    def worth(self, statistics: UseStatistics, candidates: Index) -> Worth:
        """See EvictionPolicy."""
        age = (statistics.clock - statistics.last_use[candidates]) / statistics.catalog.num_layers
        return (statistics.frequency[candidates] + 1e-6) / (1 + age)


class EdgeMoE:
    """The paper's prose (arXiv 2308.14352, section III-C): rarely used experts of far layers leave first.

    Frequency over the layers until the expert's layer runs next.
    """

    depends_on_layer = True

    def worth(self, statistics: UseStatistics, candidates: Index) -> Worth:
        """See EvictionPolicy."""
        frequency: Worth = statistics.frequency[candidates] + 1e-6
        return frequency / statistics.layers_until(candidates)


class Forecast:
    """As EdgeMoE, with the mean of frequency and of the forecast for the next token in place of frequency.

    What a router saw says much about its next choice, which counting uses cannot know. Where nothing is
    fitted there is no forecast, and this is EdgeMoE.
    """

    depends_on_layer = True

    def worth(self, statistics: UseStatistics, candidates: Index) -> Worth:
        """See EvictionPolicy."""
        uses: Worth = statistics.frequency[candidates] + statistics.expected[candidates] + 1e-6
        return uses / statistics.layers_until(candidates)


class EdgeMoEPrinted:
    """The paper's formula as printed: frequency over the layers since the expert's layer ran.

    It contradicts the prose, as it lets the next layer's experts go first. The printed denominator of
    the present layer is 0; it counts as the smallest, 1.
    """

    depends_on_layer = True

    def worth(self, statistics: UseStatistics, candidates: Index) -> Worth:
        """See EvictionPolicy."""
        num_layers = statistics.catalog.num_step_layers
        since = (statistics.position - statistics.catalog.layer_position[candidates]) % num_layers
        frequency: Worth = statistics.frequency[candidates] + 1e-6
        return frequency / np.maximum(since, 1)


FORECAST = "forecast"
POLICIES: Mapping[str, Callable[[], EvictionPolicy]] = {
    "lru": LRU,
    "lfu": LFU,
    "lfru": LFRU,
    "edgemoe": EdgeMoE,
    FORECAST: Forecast,
    "edgemoe-printed": EdgeMoEPrinted,
}
# The nearest to Belady's on held-out text at a quarter and at half of the experts, see docs/streaming.md.
DEFAULT_POLICY = FORECAST


def make_policy(name: str) -> EvictionPolicy:
    """A new policy of that name.

    Raises:
        RequestError: there is none.
    """
    if name not in POLICIES:
        raise RequestError(f"no eviction policy {name!r}; choose one of {', '.join(POLICIES)}")
    return POLICIES[name]()
