"""Stores that hold experts alone, for a model whose other weights another program runs.

Such a store has, beside the files of every store, ``experts.json``: which modules of which model its experts
belong to. Its layers are these modules, numbered in the model's order. A module's biases are the dense
tensors ``layers.{l}.experts.{gate,up,down}_bias``, one expert after the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edgemoe.errors import StoreError
from edgemoe.json_object import read_json_object

if TYPE_CHECKING:
    from edgemoe.store.store import Store

MODULES_FILE = "experts.json"


@dataclass(frozen=True, slots=True)
class ExpertModule:
    """The experts of one layer: gate, if any, and up are (F, D), down is (D, F).

    ``landmark`` names a small tensor of the model beside the experts, and ``landmark_values`` are its first
    numbers: fine-tunes of one model differ in them.
    """

    path: str  # in the model, with dots
    num_experts: int
    width: int
    expert_width: int
    activation: str
    has_gate: bool
    has_bias: bool
    landmark: str = ""
    landmark_values: tuple[float, ...] = ()

    @property
    def projections(self) -> tuple[str, ...]:
        """Names of an expert's matrices in the order of its record."""
        return ("gate", "up", "down") if self.has_gate else ("up", "down")

    def shape(self, projection: str) -> tuple[int, int]:
        """Rows and columns of one of them."""
        rows, cols = self.expert_width, self.width
        return (cols, rows) if projection == "down" else (rows, cols)


@dataclass(frozen=True, slots=True)
class ExpertModules:
    """All experts of a model; ``model_type`` and ``architecture`` as its configuration names them."""

    model_type: str
    architecture: str
    modules: tuple[ExpertModule, ...]

    def to_json(self) -> str:
        """The text of experts.json."""
        return json.dumps(asdict(self), indent=1)


def bias_name(layer: int, projection: str) -> str:
    """The dense tensor with the biases of a module's experts, (E F) or (E D) numbers."""
    return f"layers.{layer}.experts.{projection}_bias"


def holds_experts_alone(store: Store) -> bool:
    """Whether a store is of this kind."""
    return MODULES_FILE in store.manifest.files


def read_expert_modules(store: Store) -> ExpertModules:
    """What the experts of a store belong to.

    Raises:
        StoreError: it is a store of a whole model, or the description is damaged.
    """
    if not holds_experts_alone(store):
        raise StoreError(
            f"{store.path}: holds a whole model; make a store for transformers with"
            " `edgemoe convert SRC OUT --experts-only`"
        )
    try:
        fields = read_json_object(store.path / MODULES_FILE)
        modules = tuple(_module(entry) for entry in fields["modules"])
        found = ExpertModules(str(fields["model_type"]), str(fields["architecture"]), modules)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{store.path / MODULES_FILE}: damaged ({error!r}); copy the store anew") from error
    expected = {(layer, e) for layer, module in enumerate(modules) for e in range(module.num_experts)}
    if expected != store.manifest.experts.keys():
        raise StoreError(f"{store.path / MODULES_FILE}: does not fit the store; copy the store anew")
    return found


def _module(fields: Mapping[str, Any]) -> ExpertModule:
    return ExpertModule(**{**fields, "landmark_values": tuple(map(float, fields["landmark_values"]))})
