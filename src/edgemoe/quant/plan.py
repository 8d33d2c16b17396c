"""A bit plan: the storage format of every matrix of a model. Pure data; it goes into the store's manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgemoe.errors import RequestError
from edgemoe.json_object import read_json_object
from edgemoe.quant.formats import format_info


@dataclass(frozen=True, slots=True)
class ExpertFormats:
    """Formats of the matrices of one expert.

    ``gate`` is ignored for experts that have none, and None once such an expert is stored.
    """

    gate: str | None
    up: str
    down: str

    def __post_init__(self) -> None:
        for name in self.to_json():
            format_info(name)

    @classmethod
    def uniform(cls, name: str) -> ExpertFormats:
        """The same format for all three."""
        return cls(name, name, name)

    def of(self, projections: Sequence[str]) -> ExpertFormats:
        """The formats of an expert that has these matrices alone."""
        return self if "gate" in projections else ExpertFormats(None, self.up, self.down)

    def to_json(self) -> list[str]:
        """``[gate, up, down]``, or ``[up, down]`` without a gate; :meth:`from_json` is the inverse."""
        return [name for name in (self.gate, self.up, self.down) if name is not None]

    @classmethod
    def from_json(cls, names: Sequence[str]) -> ExpertFormats:
        """What :meth:`to_json` wrote.

        Raises:
            ValueError: neither two nor three names.
            RequestError: unknown format.
        """
        *gate, up, down = names
        if len(gate) > 1:
            raise ValueError(f"{len(names)} formats of one expert")
        return cls(gate[0] if gate else None, up, down)


@dataclass(frozen=True, slots=True)
class BitPlan:
    """Formats of a whole model.

    ``default`` holds for every expert that ``overrides`` (by layer and expert) does not name, ``dense`` for
    every other matrix that ``dense_overrides`` (by name) does not name. ``origin`` says where the plan came
    from, in plain JSON values.
    """

    default: ExpertFormats
    dense: str
    overrides: Mapping[tuple[int, int], ExpertFormats] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)
    dense_overrides: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (self.dense, *self.dense_overrides.values()):
            format_info(name)

    @classmethod
    def uniform(cls, expert_format: str, dense_format: str) -> BitPlan:
        """One format for all experts and one for all dense matrices.

        Raises:
            RequestError: unknown format.
        """
        return cls(ExpertFormats.uniform(expert_format), dense_format, origin={"kind": "uniform"})

    def formats_of(self, layer: int, expert: int) -> ExpertFormats:
        """Formats of one expert."""
        return self.overrides.get((layer, expert), self.default)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; :meth:`from_json` is the inverse."""
        return {
            "default": self.default.to_json(),
            "dense": self.dense,
            "dense_overrides": dict(sorted(self.dense_overrides.items())),
            "overrides": {
                f"{layer}.{expert}": formats.to_json()
                for (layer, expert), formats in sorted(self.overrides.items())
            },
            "origin": dict(self.origin),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> BitPlan:
        """The plan that :meth:`to_json` wrote.

        Raises:
            RequestError: a key is missing or unknown, or a value is not a plan's.
        """
        expected = {"default", "dense", "dense_overrides", "overrides", "origin"}
        if set(record) != expected:
            wrong = ", ".join(sorted(set(record) ^ expected))
            raise RequestError(f"not a bit plan: keys missing or unknown: {wrong}")
        try:
            overrides = {_expert_key(k): ExpertFormats(*v) for k, v in record["overrides"].items()}
            default = ExpertFormats(*record["default"])
            origin, dense_overrides = dict(record["origin"]), dict(record["dense_overrides"])
            return cls(default, record["dense"], overrides, origin, dense_overrides)
        except (TypeError, ValueError, AttributeError) as error:
            raise RequestError(f"not a bit plan: {error}") from error


def read_plan(path: Path) -> BitPlan:
    """The plan in a file.

    Raises:
        RequestError: the file is not a plan.
    """
    try:
        return BitPlan.from_json(read_json_object(path))
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from error
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from error
    except (ValueError, TypeError) as error:
        raise RequestError(f"{path}: not a bit plan: {error}") from error


def _expert_key(text: str) -> tuple[int, int]:
    layer, expert = text.split(".")
    return int(layer), int(expert)
