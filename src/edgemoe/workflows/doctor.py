"""Which budgets fit a store on this machine: ``budgets_of``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgemoe.engine.memory import MemoryNeeds, MemoryPlan, default_budget, plan_memory, resident_budget
from edgemoe.engine.prediction import predictor_num_bytes
from edgemoe.models import read_spec
from edgemoe.store import open_store, shown_name


@dataclass(frozen=True)
class StoreBudgets:
    """Budgets of a store in bytes: the smallest that works, the one that keeps every expert in memory, and
    the default now, with its reason.

    ``fits``: the store runs within the default; ``default_resident_share`` of its experts are then in memory.
    """

    store: str
    smallest_budget_bytes: int
    resident_budget_bytes: int
    default_budget_bytes: int
    default_budget_reason: str
    fits: bool
    default_resident_share: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def budgets_of(store: str | Path) -> StoreBudgets:
    """The budgets of a store, on this machine as it is now.

    Raises:
        StoreError: the store cannot be used.
    """
    opened = open_store(Path(store))
    spec = read_spec(opened.config)
    default_bytes, reason = default_budget()
    needs = MemoryNeeds(predictor_bytes=predictor_num_bytes(spec, opened))

    def plan_for(budget_bytes: int) -> MemoryPlan:
        return plan_memory(spec, opened.manifest, budget_bytes, needs)

    resident_bytes = resident_budget(spec, opened.manifest, needs)
    smallest_bytes = plan_for(resident_bytes).smallest_num_bytes
    return StoreBudgets(
        store=shown_name(store),
        smallest_budget_bytes=smallest_bytes,
        resident_budget_bytes=resident_bytes,
        default_budget_bytes=default_bytes,
        default_budget_reason=reason,
        fits=default_bytes >= smallest_bytes,
        default_resident_share=plan_for(max(default_bytes, smallest_bytes)).resident_share,
    )
