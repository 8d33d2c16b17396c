"""What llama.cpp's own quantiser needs to follow a store's plan: a type for each tensor, and importance.

GGUF files have one type for all experts of a layer, so a plan is rounded to layers and projections.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgemoe import native
from edgemoe.errors import StoreError
from edgemoe.export.gguf_file import GgufFile, tensor_num_bytes
from edgemoe.export.outline import outline
from edgemoe.export.records import read_dense, read_experts
from edgemoe.models import ModelSpec, read_spec
from edgemoe.native import FORMAT_TRAITS, FloatArray
from edgemoe.progress import Progress
from edgemoe.quant import ExpertInputs, expert_grams
from edgemoe.store import ExpertKey, Store
from edgemoe.store.durable import replace_file

# Of llama.cpp's types those of our widths; their errors are those of our formats (docs/quantization.md).
_TYPES = {"q2": "q2_k", "q3": "q3_k", "q4": "q4_k", "q6": "q6_k", "q8": "q8_0"}
# Tokens of a chunk, which readers of the file ask for; sums are over tokens whatever the chunks were.
_CHUNK_TOKENS = 512
_GAUSSIAN = (64, 2048)


@dataclass(frozen=True)
class Recipe:
    """A type for each tensor of experts, by its name.

    ``plan_error`` and ``error``: relative root-mean-square change of the experts' weights that the store's
    widths, and those types, make of a Gaussian: a prediction.
    """

    types: dict[str, str]
    plan_error: float
    error: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def text(self) -> str:
        """Lines for llama-quantize: a pattern of the tensor's name, and its type."""
        return "".join(f"^{name.replace('.', chr(92) + '.')}$={kind}\n" for name, kind in self.types.items())


def make_recipe(store: Store) -> Recipe:
    """The types nearest to the mean widths of the experts of each layer and projection.

    Raises:
        UnsupportedModelError: the family has no names in GGUF files.
    """
    spec = read_spec(store.config)
    errors: dict[str, float] = {}
    types: dict[str, str] = {}
    planned, rounded, count = 0.0, 0.0, 0
    for target in outline(spec):
        keys = [part.of for part in target.parts if isinstance(part.of, tuple)]
        if not keys:
            continue
        formats = [str(getattr(store.manifest.experts[key[:2]].formats, key[2])) for key in keys]
        own = FORMAT_TRAITS[formats[0]].block_type
        if len(set(formats)) == 1 and own is not None:
            types[target.name] = own.lower()
            continue
        bits = float(np.mean([FORMAT_TRAITS[name].bits for name in formats]))
        nearest = min(_TYPES, key=lambda name: abs(FORMAT_TRAITS[name].bits - bits))
        types[target.name] = _TYPES[nearest]
        for name in {nearest, *formats} - errors.keys():
            errors[name] = _error(name)
        planned += sum(errors[name] ** 2 for name in formats)
        rounded += len(formats) * errors[nearest] ** 2
        count += len(formats)
    return Recipe(types, (planned / max(1, count)) ** 0.5, (rounded / max(1, count)) ** 0.5)


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write the recipe's lines.

    Raises:
        StoreError: the file cannot be written.
    """
    try:
        replace_file(path, recipe.text().encode())
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}") from error


def write_imatrix(
    store: Store,
    inputs: ExpertInputs,
    path: Path,
    *,
    source: str,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write the squares of what the experts' matrices are fed, as llama.cpp's importance matrix.

    They are the diagonals of the grams that our own rounding goes by: of an expert's tokens, weighted as its
    router weighs them, and of some others of its layer that steady rare experts. ``source`` is the name of
    the text. Returns the number of tensors that it speaks of.

    Raises:
        ConversionError: ``path`` is taken, or the disk is full.
        StoreError: the store is damaged.
    """
    spec = read_spec(store.config)
    places = {
        part.of: (target, part.ref.index or 0)
        for target in outline(spec)
        for part in target.parts
        if isinstance(part.of, tuple)
    }
    names = list(dict.fromkeys(target.name for target, _ in places.values()))
    sums = {t.name: np.zeros((max(1, t.num_entries), t.shape[-1]), np.float32) for t, _ in places.values()}
    counts = {name: np.zeros((len(sums[name]), 1), np.float32) for name in names}
    total, biases = len(store.manifest.experts), _Biases(store, spec)
    for done, (key, matrices, _) in enumerate(read_experts(store, spec), 1):
        x, weights = inputs.rows(*key)
        floats = {
            name: native.dequantize_rows(matrix, np.arange(matrix.num_rows, dtype=np.int32))
            for name, matrix in matrices.items()
            if name != "down"
        }
        for name, squares in _squares(spec, key[0], x, weights, floats, biases.of(key)).items():
            part = (*key, name)
            target, index = places[part]
            num_columns = target.shape[-1]  # rows may be filled up behind these
            sums[target.name][index] = squares[:num_columns] * len(x)
            counts[target.name][index] = len(x)
        if progress is not None:
            progress(done, total)
    arrays = {
        f"{n}.{what}": values[n] for n in names for what, values in (("in_sum2", sums), ("counts", counts))
    }
    _write_arrays(path, source, arrays, overwrite)
    return len(names)


def _write_arrays(path: Path, source: str, arrays: Mapping[str, FloatArray], overwrite: bool) -> None:
    """Arrays of floats as llama.cpp's file of importances."""
    keys = {
        "general.type": "imatrix",
        "imatrix.datasets": [source],
        "imatrix.chunk_count": 1,
        "imatrix.chunk_size": _CHUNK_TOKENS,
    }
    with GgufFile(path, overwrite) as file:
        described = {
            n: (a.shape, "F32", tensor_num_bytes(a.shape, 4 * a.shape[-1])) for n, a in arrays.items()
        }
        file.begin("imatrix", keys, described)
        for name, array in arrays.items():
            file.write(name, array.view(np.uint8))
        file.finish()


class _Biases:
    """Biases of experts' gates and ups, a layer at a time."""

    def __init__(self, store: Store, spec: ModelSpec) -> None:
        self._store, self._spec = store, spec
        self._layer, self._rows = -1, [np.zeros((0, 0), np.float32)]

    def of(self, key: ExpertKey) -> list[FloatArray]:
        """Those of an expert, (F,) each; none where the family has none."""
        expert, width = self._spec.moe(key[0]).expert, self._spec.expert_sizes(key[0])[1]
        if not expert.has_bias:
            return []
        if self._layer != key[0]:
            names = [f"layers.{key[0]}.experts.{p}_bias" for p in expert.projections[:-1]]
            found = [read_dense(self._store, name) for name in names]
            self._rows = [f.reshape(-1, width) for f in found if isinstance(f, np.ndarray)]
            self._layer = key[0]
        return [rows[key[1]] for rows in self._rows]


def _squares(
    spec: ModelSpec,
    layer: int,
    x: FloatArray,
    weights: FloatArray,
    floats: dict[str, FloatArray],
    biases: list[FloatArray],
) -> dict[str, FloatArray]:
    """Mean squares of the inputs of an expert's matrices, by their names."""
    expert, step = spec.moe(layer).expert, spec.width
    gate, up = floats.get("gate"), floats["up"]
    pieces = (
        (None if gate is None else gate[start : start + step], up[start : start + step])
        for start in range(0, len(up), step)
    )
    grams = expert_grams(x, weights, pieces, expert.activation, biases)
    return {name: np.diagonal(grams[name]) for name in expert.projections}


def _error(format: str) -> float:
    """The relative error of Gaussian weights in this format; 0 where blocks are kept as they are."""
    if not FORMAT_TRAITS[format].is_rounded:
        return 0.0
    weights = np.random.default_rng(0).standard_normal(_GAUSSIAN).astype(np.float32)
    restored = native.dequantize(native.quantize(weights, format), format, *_GAUSSIAN)
    return float(np.sqrt(np.mean((restored - weights) ** 2)))
