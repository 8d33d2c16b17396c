"""What ``edgemoe fit`` learns about a model's routing, and the file of the store that holds it.

Letters: D width, E experts of a layer, S layers that have experts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import safetensors
import safetensors.numpy

from edgemoe.errors import StoreError
from edgemoe.experts.next_use import NextUse
from edgemoe.experts.predictors import GateHead, TransitionTable, num_gate_columns
from edgemoe.native import FloatArray, Matrix, quantize
from edgemoe.safetensors_header import read_header
from edgemoe.store import Store, attach_file

STEM, SUFFIX = "predictor", ".safetensors"
GATE_FORMAT = "f16"


@dataclass(frozen=True)
class FittedGate:
    """Corrected routers: ``weights`` (sum of the targets' E, columns of ``gate_features``)."""

    weights: FloatArray
    targets: tuple[tuple[int, int], ...]  # (position, E), in the order of the rows

    def head(self) -> GateHead:
        """In the form that predictors multiply with."""
        return GateHead(_matrix(self.weights), self.targets)


@dataclass(frozen=True)
class FittedRouting:
    """Gates by the position they look ahead from; tables and their weights by the one they forecast.

    ``next_uses`` (E, columns of ``gate_features``) forecast the same position for the next token.
    """

    gates: Mapping[int, FittedGate]
    tables: Mapping[int, TransitionTable]
    table_weights: Mapping[int, float]
    next_uses: Mapping[int, FloatArray] = field(default_factory=dict)

    def fits(self, width: int, num_experts: Sequence[int]) -> bool:
        """Whether it is for a model of this width D with so many experts in each layer."""
        count = len(num_experts)
        if not {*self.gates, *self.tables, *self.next_uses} <= set(range(count)):
            return False
        columns = [num_gate_columns(width, size) for size in num_experts]
        targets = [target for gate in self.gates.values() for target in gate.targets]
        shapes = [
            *(
                (g.weights.shape, (sum(size for _, size in g.targets), columns[p]))
                for p, g in self.gates.items()
            ),
            *((weights.shape, (num_experts[p], columns[p])) for p, weights in self.next_uses.items()),
            *(
                (
                    (*t.sizes, t.pair is None or t.pair.shape == (t.sizes[2], *t.single.shape)),
                    (*(num_experts[(p - i) % count] for i in range(3)), True),
                )
                for p, t in self.tables.items()
            ),
        ]
        if not all(t.older.shape[1] == t.single.shape[1] for t in self.tables.values()):
            return False
        return set(targets) <= set(enumerate(num_experts)) and all(own == due for own, due in shapes)

    def next_use(self, first_step: int = 0) -> NextUse:
        """In the form that the engine asks; ``first_step`` is the position that counts as 0 here."""
        return NextUse(
            {first_step + position: _matrix(weights) for position, weights in self.next_uses.items()}
        )


def _matrix(weights: FloatArray) -> Matrix:
    return Matrix(quantize(weights, GATE_FORMAT), GATE_FORMAT, *weights.shape)


def save_fitted(store: Store, fitted: FittedRouting) -> Store:
    """Put it into the store in place of what was fitted before; half precision is enough for scores.

    Raises:
        StoreError: the store cannot be written.
    """
    tensors: dict[str, np.ndarray] = {}
    for position, gate in fitted.gates.items():
        tensors[f"gate.{position}.weights"] = gate.weights.astype(np.float16)
        tensors[f"gate.{position}.targets"] = np.array(gate.targets, np.int32)
    for position, table in fitted.tables.items():
        for name in ("single", "older", "pair"):
            values = getattr(table, name)
            if values is not None:
                tensors[f"table.{position}.{name}"] = values.astype(np.float16)
        tensors[f"table.{position}.weight"] = np.array([fitted.table_weights.get(position, 0.0)], np.float32)
    for position, weights in fitted.next_uses.items():
        tensors[f"next_use.{position}.weights"] = weights.astype(np.float16)
    return attach_file(store, STEM, SUFFIX, safetensors.numpy.save(tensors))


def find_fitted(store: Store) -> str | None:
    """Name of the store's file, or None where nothing was fitted yet."""
    return next((f for f in store.manifest.files if f.startswith(f"{STEM}-") and f.endswith(SUFFIX)), None)


def read_fitted(store: Store) -> FittedRouting | None:
    """What was fitted for the store, or None.

    Raises:
        StoreError: the file does not hold what it should.
    """
    name = find_fitted(store)
    if name is None:
        return None
    path = store.path / name
    try:
        # The checksum was compared when the store was opened; who made the file may still wish harm.
        read_header(path)
        return _parse(safetensors.numpy.load_file(path))
    except (OSError, KeyError, ValueError, TypeError, IndexError, safetensors.SafetensorError) as error:
        raise StoreError(f"{path}: damaged ({error}); run `edgemoe fit` again") from error


def _parse(tensors: Mapping[str, np.ndarray]) -> FittedRouting:
    gates, tables, table_weights, next_uses = {}, {}, {}, {}
    for name in tensors:
        kind, number, part = name.split(".")
        position = int(number)
        if kind == "gate" and part == "weights":
            targets = tensors[f"gate.{position}.targets"]
            if targets.ndim != 2 or targets.shape[1] != 2 or targets.dtype != np.int32:
                raise ValueError(f"gate.{position}.targets are no pairs")
            gates[position] = FittedGate(_floats(tensors, name, 2), tuple(map(tuple, targets.tolist())))
        elif kind == "table" and part == "single":
            has_pair = f"table.{position}.pair" in tensors
            tables[position] = TransitionTable(
                _floats(tensors, name, 2),
                _floats(tensors, f"table.{position}.older", 2),
                _floats(tensors, f"table.{position}.pair", 3) if has_pair else None,
            )
            table_weights[position] = float(_floats(tensors, f"table.{position}.weight", 1)[0])
        elif kind == "next_use":
            next_uses[position] = _floats(tensors, name, 2)
    return FittedRouting(gates, tables, table_weights, next_uses)


def _floats(tensors: Mapping[str, np.ndarray], name: str, num_axes: int) -> FloatArray:
    """Finite numbers: scores that are not have no order."""
    values = tensors[name]
    if values.dtype.kind != "f" or values.ndim != num_axes or 0 in values.shape:
        raise ValueError(f"{name} is not an array of numbers with {num_axes} axes")
    floats: FloatArray = np.ascontiguousarray(values, np.float32)
    if not np.isfinite(floats).all():
        raise ValueError(f"{name} holds values that are not finite")
    return floats
