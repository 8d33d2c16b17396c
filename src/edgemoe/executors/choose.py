"""From what people write to an executor: local, local:4, ray, ray://host:10001, slurm, slurm:partition."""

from __future__ import annotations

from dataclasses import dataclass

from edgemoe import arguments
from edgemoe.errors import RequestError
from edgemoe.executors.here import Here
from edgemoe.executors.items import Executor
from edgemoe.executors.processes import Processes
from edgemoe.executors.ray_cluster import RayCluster
from edgemoe.executors.slurm import Slurm

KINDS = "local, local:4, ray, ray:HOST:6379, ray://HOST:10001, slurm, slurm:PARTITION"


@dataclass(frozen=True)
class ExecutorOptions:
    """Where work runs. ``memory_bytes`` is what each worker may take; None: the executor's own choice.

    Raises:
        RequestError: a number is none.
    """

    name: str = "local"
    num_workers: int | None = None
    num_cores: int | None = None  # of a worker
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in ("num_workers", "num_cores", "memory_bytes"):
            value = getattr(self, name)
            if value is not None:
                arguments.whole(name, value, 1)


LOCAL = ExecutorOptions()


def find_executor(options: ExecutorOptions) -> Executor:
    """The executor of that name.

    Raises:
        RequestError: there is none, or an option does not go with it.
    """
    kind, _, rest = options.name.partition(":")
    if kind == "local" and _num_local(options, rest) == 1:
        return Here()
    if kind in ("local", "ray", "slurm") and options.memory_bytes is None:
        raise RequestError(f"--executor {options.name}: say with --memory what each worker may take")
    if kind == "local":
        return Processes(_num_local(options, rest))
    if kind == "ray":
        address = options.name if rest.startswith("//") else rest or None
        return RayCluster(address, options.num_workers, options.num_cores, options.memory_bytes)
    if kind == "slurm":
        return Slurm(options.num_workers, options.num_cores, options.memory_bytes, _parameters(rest))
    raise RequestError(f"no executor {options.name!r}; choose one of {KINDS}")


def _num_local(options: ExecutorOptions, rest: str) -> int:
    if rest and options.num_workers is not None:
        raise RequestError("--executor local:N says how many workers there are; leave out --workers")
    if rest and not (rest.isdecimal() and int(rest) > 0):
        raise RequestError(f"--executor {options.name!r}: give a number of processes, such as local:4")
    if options.num_cores is not None:
        raise RequestError(
            "--worker-cores is for ray and slurm; local workers share the cores of this machine"
        )
    return int(rest) if rest else options.num_workers or 1


def _parameters(text: str) -> dict[str, str | int]:
    """Parameters of submitit: "partition" or "partition,slurm_account=x,timeout_min=600"."""
    found: dict[str, str | int] = {}
    for part in filter(None, text.split(",")):
        name, sign, value = part.partition("=")
        if not sign:
            name, value = "slurm_partition", part
        found[name] = int(value) if value.isdecimal() else value
    return found
