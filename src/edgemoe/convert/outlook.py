"""What a conversion would give, before any weight is read: sizes, budgets, and how fast it would run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgemoe.checkpoint import CheckpointSource
from edgemoe.convert.conversion import Conversion
from edgemoe.convert.preview import converting_bytes
from edgemoe.engine.memory import plan_memory, resident_budget
from edgemoe.engine.speed import SpeedForecast, forecast_speed
from edgemoe.models import family_of
from edgemoe.quant import BitPlan, ExpertFormats
from edgemoe.store import DenseEntry, ExpertEntry, Manifest


@dataclass(frozen=True)
class BudgetOutlook:
    """A budget and what it gives."""

    budget_bytes: int
    resident_share: float
    speed: SpeedForecast


@dataclass(frozen=True)
class Outlook:
    """A model as it would be after converting; sizes in bytes. ``budgets`` from the smallest on."""

    family: str
    num_layers: int
    num_experts: int
    source_bytes: int
    store_bytes: int
    converting_bytes: int
    smallest_budget_bytes: int
    resident_budget_bytes: int
    budgets: tuple[BudgetOutlook, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def look_ahead(
    source: CheckpointSource,
    plan: BitPlan,
    product_bytes_per_s: float,
    storage_bytes_per_s: float,
    budgets_bytes: Sequence[int] = (),
    *,
    keeps_mtp: bool = True,
) -> Outlook:
    """What the store of a checkpoint would take and give, at these budgets or some that make sense.

    Raises:
        CheckpointError: the checkpoint is not one we can run.
        BudgetError: a budget is too small.
    """
    conversion = Conversion(source, plan, keeps_mtp=keeps_mtp)
    spec, layout = conversion.spec, conversion.layout
    whole = Manifest(
        generator="",
        plan={},
        files={name: len(data) for name, data in source.files().items()},
        checksums={},
        dense={
            name: DenseEntry("", (), place.file, place.offset, place.num_bytes, "")
            for name, place in layout.dense.items()
        },
        experts={
            key: ExpertEntry(ExpertFormats.uniform("f32"), place.file, place.offset, place.num_bytes, "")
            for key, place in layout.experts.items()
        },
    )
    manifest = conversion.parted(whole)
    resident = resident_budget(spec, manifest)
    smallest = plan_memory(spec, manifest, resident).smallest_num_bytes
    half = (smallest + resident) // 2
    found = []
    for budget in budgets_bytes or dict.fromkeys((smallest, half, resident)):
        share = plan_memory(spec, manifest, budget).resident_share
        speed = forecast_speed(spec, manifest, share, product_bytes_per_s, storage_bytes_per_s)
        found.append(BudgetOutlook(budget, share, speed))
    return Outlook(
        family=family_of(spec).title,
        num_layers=len(spec.layers),
        num_experts=len(layout.experts),
        source_bytes=sum(info.num_bytes for info in source.tensors().values()),
        store_bytes=layout.num_bytes,
        converting_bytes=converting_bytes(layout),
        smallest_budget_bytes=smallest,
        resident_budget_bytes=resident,
        budgets=tuple(found),
    )
