"""The weights of a store: whether they are those of its configuration, and the dense ones in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice

import numpy as np
import xxhash

from edgemoe.errors import StoreError
from edgemoe.experts import ExpertLayerShape
from edgemoe.models import DenseWeights, ModelSpec, TensorSpec
from edgemoe.native import Matrix, packed_num_bytes
from edgemoe.store import ExpertEntry, Manifest, Store, expert_num_bytes


def weights_id(manifest: Manifest) -> str:
    """The same for stores of the same weights in the same formats, whatever lies beside them."""
    entries = [(name, entry.checksum) for name, entry in manifest.dense.items()]
    entries += [(f"{layer}.{e}", entry.checksum) for (layer, e), entry in manifest.experts.items()]
    return xxhash.xxh3_64_hexdigest(json.dumps(sorted(entries)).encode())


def expert_shape(spec: ModelSpec, weights: DenseWeights, layer: int) -> ExpertLayerShape:
    """What the experts of a layer are, with their biases where they have some."""
    expert, biases = spec.moe(layer).expert, weights.expert_biases(spec, layer)
    return ExpertLayerShape(*spec.expert_sizes(layer), expert.activation, biases)


def check_store(spec: ModelSpec, store: Store, tensors: Iterable[TensorSpec] | None = None) -> None:
    """The store holds exactly the tensors of the spec, in the sizes that follow from it.

    ``tensors``: the dense ones, where they are not the spec's.

    Raises:
        StoreError: naming the first that does not fit.
    """
    entries = store.manifest.experts
    tensors = spec.dense_tensors() if tensors is None else tensors
    expected = {tensor.name: tensor.shape for tensor in tensors}
    actual = {name: entry.shape for name, entry in store.manifest.dense.items()}
    wrong = sorted(name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name))
    # No more than one too many are listed: a configuration can name any number.
    misfits = sorted(set(islice(spec.experts(), len(entries) + 1)) ^ entries.keys())
    misfits = misfits or [key for key, entry in entries.items() if not _fits(spec, key[0], entry)]
    if wrong or misfits:
        what = f"tensor {wrong[0]}" if wrong else "layer {} expert {}".format(*misfits[0])
        raise StoreError(f"{store.path}: {what} does not fit config.json; convert the checkpoint again")


def _fits(spec: ModelSpec, layer: int, entry: ExpertEntry) -> bool:
    """Whether a record has the matrices and the size that an expert of the layer has."""
    expert = spec.moe(layer).expert
    has_gate = entry.formats.gate is not None
    try:
        size = expert_num_bytes(entry.formats, *spec.expert_sizes(layer))
    except ValueError:  # rows of a length that the format cannot have
        return False
    return has_gate == expert.is_gated and entry.num_bytes == size


def read_dense_weights(
    spec: ModelSpec, store: Store, reader_kind: str = "auto", tensors: Iterable[TensorSpec] | None = None
) -> DenseWeights:
    """The non-expert weights of a store that ``check_store`` has passed, with the same ``tensors``.

    Raises:
        CorruptStoreError, StoreError: they are damaged or cannot be read.
    """
    stored = store.read_dense(reader_kind)
    matrices, vectors = {}, {}
    for tensor in spec.dense_tensors() if tensors is None else tensors:
        entry, data = store.manifest.dense[tensor.name], stored[tensor.name]
        if len(entry.shape) == 1:
            vectors[tensor.name] = data[: 4 * entry.shape[0]].view(np.float32)
        else:
            rows, cols = entry.shape
            packed = data[: packed_num_bytes(entry.format, rows, cols)]
            matrices[tensor.name] = Matrix(packed, entry.format, rows, cols)
    return DenseWeights(matrices, vectors)
