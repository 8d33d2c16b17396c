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
                (t.sizes, tuple(num_experts[(p - i) % count] for i in range(3)))
                for p, t in self.tables.items()
            ),
        ]
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
        # The checksum was compared when the store was opened.
        return _parse(safetensors.numpy.load_file(path))
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise StoreError(f"{path}: damaged ({error}); run `edgemoe fit` again") from error


def _parse(tensors: Mapping[str, np.ndarray]) -> FittedRouting:
    gates, tables, table_weights, next_uses = {}, {}, {}, {}
    for name in tensors:
        kind, number, part = name.split(".")
        position = int(number)
        if kind == "gate" and part == "weights":
            weights = tensors[name].astype(np.float32)
            pairs = tensors[f"gate.{position}.targets"].tolist()
            gates[position] = FittedGate(weights, tuple((target, size) for target, size in pairs))
        elif kind == "table" and part == "single":
            single, older = (tensors[f"table.{position}.{p}"].astype(np.float32) for p in ("single", "older"))
            pair = tensors.get(f"table.{position}.pair")
            tables[position] = TransitionTable(
                single, older, None if pair is None else pair.astype(np.float32)
            )
            table_weights[position] = float(tensors[f"table.{position}.weight"][0])
        elif kind == "next_use":
            next_uses[position] = tensors[name].astype(np.float32)
    return FittedRouting(gates, tables, table_weights, next_uses)
