"""What experts are fed on a text, as rounding takes it: the Gram matrices of the inputs of their matrices."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

import numpy as np

from edgemoe.checkpoint import CheckpointSource
from edgemoe.models import ModelSpec, TensorSources
from edgemoe.native import FloatArray
from edgemoe.quant import ExpertInputs, expert_grams
from edgemoe.store import ExpertKey


class InputGrams:
    """Of one model's experts. The inputs of a down matrix follow from gate and up, which are read for it."""

    def __init__(
        self, source: CheckpointSource, spec: ModelSpec, sources: TensorSources, inputs: ExpertInputs
    ) -> None:
        self._source = source
        self._spec = spec
        self._sources = sources
        self._inputs = inputs

    def of(self, key: ExpertKey) -> dict[str, FloatArray]:
        """By projection, as ``expert_grams`` gives them.

        Raises:
            CheckpointError: a tensor cannot be read.
        """
        x, weights = self._inputs.rows(*key)
        x, expert = self._given(key[0], x), self._spec.moe(key[0]).expert
        gates = self._raising_rows(key, "gate") if expert.is_gated else repeat(None)
        raising = zip(gates, self._raising_rows(key, "up"), strict=False)
        biases = [self._bias(key, p) for p in expert.projections[:-1]] if expert.has_bias else ()
        return expert_grams(x, weights, raising, expert.activation, biases)

    def _given(self, layer: int, x: FloatArray) -> FloatArray:
        """What a layer's experts get of what its router saw."""
        moe, prefix = self._spec.moe(layer), f"layers.{layer}.latent.in"
        if not moe.latent_width:
            return x
        y = x @ self._source.read(self._sources.dense[f"{prefix}.weight"]).T
        if moe.has_latent_bias:
            y += self._source.read(self._sources.dense[f"{prefix}.bias"]).reshape(-1)
        return np.asarray(y, np.float32)

    def _bias(self, key: ExpertKey, projection: str) -> FloatArray:
        """The bias of an expert's gate or up, (F,)."""
        ref = self._sources.dense[f"layers.{key[0]}.experts.{projection}_bias"]
        return self._source.read(ref.slice_rows(key[1], key[1] + 1)).reshape(-1)

    def _raising_rows(self, key: ExpertKey, projection: str) -> Iterator[FloatArray]:
        """Rows of gate or up, at most as many at a time as the model is wide."""
        ref = self._sources.experts[key[0], key[1], projection]
        num_rows, step = self._spec.expert_sizes(key[0])[1], self._spec.width
        for start in range(0, num_rows, step):
            yield self._source.read(ref.slice_rows(start, min(start + step, num_rows)))
