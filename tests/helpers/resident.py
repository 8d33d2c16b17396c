"""A checkpoint loaded straight into a Decoder, without a store: the in-memory oracle of streaming."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgemoe import native
from edgemoe.checkpoint import CheckpointSource, open_checkpoint
from edgemoe.models import Decoder, DenseWeights, ModelSpec, ResidentExperts, find_sources, read_spec
from edgemoe.native import ExpertWeights, Matrix


def pack(weights: np.ndarray, format: str) -> Matrix:
    """A packed matrix of float weights."""
    weights = np.ascontiguousarray(weights, np.float32)
    return Matrix(native.quantize(weights, format), format, *weights.shape)


def load_resident(source: CheckpointSource, format: str = "f32") -> tuple[ModelSpec, Decoder]:
    """Decoder with every expert in memory; matrices in ``format``, the rest in f32."""
    spec, weights, experts = resident_parts(source, format)
    return spec, Decoder(spec, weights, experts)


def logits_of(path: Path, tokens: np.ndarray) -> np.ndarray:
    """Logits (T, V) of the checkpoint at a path, weights in f32."""
    source = open_checkpoint(path)
    spec, decoder = load_resident(source)
    source.close()
    return decoder.head(decoder.forward(tokens, spec.new_state(len(tokens), "f32")))


def resident_parts(
    source: CheckpointSource, format: str = "f32"
) -> tuple[ModelSpec, DenseWeights, ResidentExperts]:
    """What models are made from, all of it in memory."""
    spec = read_spec(source.config())
    sources = find_sources(spec, {name: info.shape for name, info in source.tensors().items()})
    matrices, vectors = {}, {}
    for tensor in spec.dense_tensors():
        values = source.read(sources.dense[tensor.name])
        if len(tensor.shape) == 1:
            vectors[tensor.name] = values.ravel()
        else:
            matrices[tensor.name] = pack(values, format if tensor.kind == "matrix" else "f32")
    experts = {
        (layer, expert): ExpertWeights(
            *(
                pack(source.read(sources.experts[layer, expert, p]), format)
                if (layer, expert, p) in sources.experts
                else None
                for p in ("gate", "up", "down")
            )
        )
        for layer, expert in spec.experts()
    }
    activation = spec.moe(spec.moe_layers[0]).expert.activation
    weights = DenseWeights(matrices, vectors)
    found = {layer: weights.expert_biases(spec, layer) for layer in spec.moe_layers}
    biases = {layer: rows for layer, rows in found.items() if rows is not None}
    return spec, weights, ResidentExperts(experts, activation, biases)
