"""What a machine can do, and which budgets fit which store on it: ``examine_machine`` and ``budgets_of``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgemoe.bench import StorageSpeed, measure_memory, measure_storage
from edgemoe.convert import open_runnable
from edgemoe.engine.budget import default_budget
from edgemoe.engine.energy import find_counters
from edgemoe.engine.machine import Machine, describe_machine
from edgemoe.engine.memory import MemoryPlan, plan_memory, resident_budget
from edgemoe.engine.store_needs import needs_of
from edgemoe.errors import RequestError
from edgemoe.models import read_spec
from edgemoe.progress import Tell, unheard
from edgemoe.store import shown_name
from edgemoe.workflows.demo import demo_store


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


@dataclass(frozen=True)
class MachineReport:
    """What this machine can do: memory is read at ``memory_bytes_per_s``, the storage of ``folder`` as
    ``storage`` says, or it cannot be measured, for ``storage_error``.

    ``energy_source``: the counter that tells of energy, or "estimate" where none can be read.
    """

    machine: Machine
    energy_source: str
    memory_bytes_per_s: float
    folder: Path
    storage: StorageSpeed | None
    storage_error: str | None
    stores: tuple[StoreBudgets, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        unmeasured = {
            "folder": str(self.folder),
            "bytes_per_s": None,
            "method": None,
            "error": self.storage_error,
        }
        return {
            "machine": self.machine.to_json(),
            "energy_source": self.energy_source,
            "memory_bytes_per_s": self.memory_bytes_per_s,
            "storage": unmeasured if self.storage is None else self.storage.to_json(),
            "stores": [store.to_json() for store in self.stores],
        }


def examine_machine(stores: Sequence[str | Path] = (), *, tell: Tell = unheard) -> MachineReport:
    """Time this machine's memory and storage, some seconds, and say which budgets fit stores on it.

    A store may be a GGUF file, as it is run. Storage is timed by direct reads of a temporary file beside the
    first store that is on this disk, else in the working folder. Without ``stores`` the budgets are those of
    the demo. ``tell`` takes what people should know.

    Raises:
        CheckpointError: a GGUF file cannot be run.
        StoreError: a store cannot be used.
    """
    paths = [Path(store) for store in stores]
    folder = next((path.absolute().parent for path in paths if path.exists()), Path.cwd())
    # Before anything is measured: what is no store is refused at once.
    budgets = tuple(map(budgets_of, stores)) if stores else (_budgets_of_demo(),)
    tell(f"measuring memory and the storage of {folder} ...")
    storage, error = None, None
    try:
        storage = measure_storage(folder)
    except RequestError as refused:  # as in a folder that is read only
        error = str(refused)
        tell(error)
    return MachineReport(
        machine=describe_machine(),
        energy_source=find_counters().source or "estimate",
        memory_bytes_per_s=measure_memory(),
        folder=folder,
        storage=storage,
        storage_error=error,
        stores=budgets,
    )


def budgets_of(store: str | Path) -> StoreBudgets:
    """The budgets of a store or a GGUF file, on this machine as it is now.

    Raises:
        CheckpointError: a GGUF file cannot be run.
        StoreError: the store cannot be used.
    """
    opened = open_runnable(store)
    spec = read_spec(opened.config)
    default_bytes, reason = default_budget()
    needs = needs_of(spec, opened)

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


def _budgets_of_demo() -> StoreBudgets:
    with demo_store() as path:
        return replace(budgets_of(path), store="(demo)")
