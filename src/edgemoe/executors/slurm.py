"""Jobs of Slurm, by submitit: one job for each worker, with every n-th item."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgemoe.errors import RequestError, WorkerError
from edgemoe.executors.items import AnyItem, Item
from edgemoe.executors.worker import MAX_DEATHS, Call, Failure, calling

DEFAULT_WORKERS = 4
DEFAULT_CPUS = 8
# Time limit of a job. A job that reaches it is started again with the items that are left.
DEFAULT_MINUTES = 240
_LOGS = "jobs"
_POLL_S = 0.5


class Slurm:
    """Jobs of one array; ``cluster`` "local" runs them as processes of this machine, without Slurm.

    ``parameters`` are submitit's, such as slurm_partition, slurm_account or timeout_min.
    """

    def __init__(
        self,
        num_workers: int | None = None,
        num_cpus: int | None = None,
        memory_bytes: int | None = None,
        parameters: dict[str, str | int] | None = None,
        cluster: str = "slurm",
    ) -> None:
        self._num_workers, self._num_cpus = num_workers or DEFAULT_WORKERS, num_cpus or DEFAULT_CPUS
        self._memory_bytes, self._parameters, self._cluster = memory_bytes, parameters or {}, cluster

    def check(self) -> None:
        """See Executor."""
        with tempfile.TemporaryDirectory() as logs:
            self._open(Path(logs))

    def map(
        self,
        work: Callable[[AnyItem], None],
        items: Sequence[AnyItem],
        folder: Path,
        finished: Callable[[AnyItem], None],
    ) -> None:
        """See Executor."""
        executor = self._open(folder / _LOGS)
        left = list(items)
        num_deaths = 0
        with calling(work, folder, self._num_cpus) as call:
            while left:
                before = len(left)
                how = self._round(executor, call, left, finished)
                if left:
                    num_deaths = num_deaths + 1 if len(left) == before else 1
                    if num_deaths >= MAX_DEATHS:
                        raise WorkerError(
                            f"{left[0].name}: its job ended {MAX_DEATHS} times without it ({how}); see"
                            f" {folder / _LOGS}. The same command goes on"
                        )

    def _open(self, logs: Path) -> Any:
        try:
            import submitit
        except ImportError:
            raise RequestError("--executor slurm needs submitit: pip install 'edgemoe[slurm]'") from None
        try:
            executor = submitit.AutoExecutor(logs, cluster=self._cluster)
            needs = {} if self._memory_bytes is None else {"mem_gb": self._memory_bytes / 2**30}
            executor.update_parameters(
                **{
                    "name": "edgemoe",
                    "timeout_min": DEFAULT_MINUTES,
                    "cpus_per_task": self._num_cpus,
                    **needs,
                },
                **self._parameters,
            )
        except (RuntimeError, NameError, TypeError, ValueError, AssertionError) as error:
            raise RequestError(f"--executor slurm: {str(error).splitlines()[0]}") from error
        return executor

    def _round(
        self, executor: Any, call: Call, left: list[AnyItem], finished: Callable[[AnyItem], None]
    ) -> str:
        """Submit what is left, wait until all jobs have ended, and take finished items from the list.

        Returns what is known of a job that ended without finishing its items.
        """
        count = min(self._num_workers, len(left))
        slices = [left[start::count] for start in range(count)]
        try:
            with executor.batch():
                jobs = [executor.submit(_run_slice, call, part) for part in slices]
        except Exception as error:
            raise WorkerError(f"Slurm takes no job: {str(error).splitlines()[0]}") from error
        try:
            while True:
                has_ended = all(job.done() for job in jobs)
                for item in [item for item in left if item.output.exists()]:
                    left.remove(item)
                    finished(item)
                if has_ended:
                    break
                time.sleep(_POLL_S)
        except BaseException:
            for job in jobs:
                job.cancel(check=False)
            raise
        return _ends(jobs)


def _run_slice(call: Call, items: Sequence[Item]) -> Failure | None:
    """What a job does: its items in turn, up to the first that fails."""
    with call.mark.ends_this_process():
        for item in items:
            failure = call(item)
            if failure is not None:
                return failure
    return None


def _ends(jobs: Sequence[Any]) -> str:
    """How the jobs that did not end well ended.

    Raises:
        WorkerError: an item failed.
    """
    ends = set()
    for job in jobs:
        error = job.exception()
        if error is not None:
            lines = (job.stderr() or str(error)).strip().splitlines() or [type(error).__name__]
            ends.add(f"{job.state}: {lines[-1].strip()}")
        elif job.result() is not None:
            raise job.result().error()
    return "; ".join(sorted(ends))
