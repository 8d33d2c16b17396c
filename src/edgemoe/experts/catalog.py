"""All routed experts of a model, numbered: what cache, policies and predictors share.

Letters: N experts in all, S layers that have experts, L of them that run at every step.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

ExpertKey = tuple[int, int]
Index = NDArray[np.int64]


class Catalog:
    """Experts ordered by layer, then by expert; an expert is known by its place in this order."""

    def __init__(self, record_num_bytes: Mapping[ExpertKey, int], num_encoder_layers: int = 0) -> None:
        """``record_num_bytes`` gives each (layer, expert) the size of its record; the model's first
        ``num_encoder_layers`` layers run once for a prompt.
        """
        self.keys = sorted(record_num_bytes)
        self.num_bytes: Index = np.array([record_num_bytes[key] for key in self.keys], np.int64)
        self.layers = sorted({layer for layer, _ in self.keys})
        self.position = {layer: place for place, layer in enumerate(self.layers)}
        # The position of the first layer that runs at every step.
        self.first_step = sum(layer < num_encoder_layers for layer in self.layers)
        self.layer_position: Index = np.array([self.position[layer] for layer, _ in self.keys], np.int64)
        starts = np.searchsorted(self.layer_position, np.arange(len(self.layers) + 1))
        self._spans = [slice(int(a), int(b)) for a, b in pairwise(starts)]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def num_layers(self) -> int:
        """Layers that have experts (S)."""
        return len(self.layers)

    @property
    def num_step_layers(self) -> int:
        """Layers with experts that run at every step (L): all, or the decoder's if there is an encoder."""
        return len(self.layers) - self.first_step

    def span(self, position: int) -> slice:
        """The numbers of all experts of the layer at this position, 0 to S - 1."""
        return self._spans[position]

    def experts(self, position: int) -> range:
        """The same numbers as ``span``, to iterate over."""
        span = self._spans[position]
        return range(span.start, span.stop)

    def num_experts(self, position: int) -> int:
        """Experts of the layer at this position."""
        span = self._spans[position]
        return span.stop - span.start
