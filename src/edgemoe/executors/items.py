"""Items of work, and the seam behind which they are computed.

An item makes one file. It is idempotent: computed twice it makes the same file, and one whose file is there
is done. So work that was killed goes on, and an item whose worker died is simply computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from edgemoe.errors import WorkerError
from edgemoe.executors.mark import end_earlier_workers
from edgemoe.progress import Progress


class Item(Protocol):
    """One piece of work, which can be pickled."""

    @property
    def name(self) -> str:
        """As people are told of it."""
        ...

    @property
    def output(self) -> Path:
        """The file that it makes, whole or not at all."""
        ...


AnyItem = TypeVar("AnyItem", bound=Item)


class Executor(Protocol):
    """Computes items somewhere; the same in-process, on this machine and on others."""

    def check(self) -> None:
        """Refuse, before any work, what can be known to be missing: a library, a cluster, a setting.

        Raises:
            RequestError, WorkerError: it cannot compute anything.
        """
        ...

    def map(
        self,
        work: Callable[[AnyItem], None],
        items: Sequence[AnyItem],
        folder: Path,
        finished: Callable[[AnyItem], None],
    ) -> None:
        """Compute every item, in any order; ``finished`` is called in this thread once a file is there.

        ``work`` can be pickled and is known by its module; ``folder`` holds all files, and every worker must
        see it. Items whose worker died are computed again a few times.

        Raises:
            WorkerError: an item failed, workers keep dying, or a node cannot take part.
        """
        ...


def run_items(
    executor: Executor,
    work: Callable[[AnyItem], None],
    items: Sequence[AnyItem],
    folder: Path,
    progress: Progress | None = None,
    finished: Callable[[AnyItem], None] | None = None,
) -> None:
    """Compute the items whose files are not there yet.

    ``finished`` is told of each item, those too that an earlier run has computed, and may remove its file.
    Nobody else works in the folder: jobs of an earlier run that was killed are ended first.

    Raises:
        WorkerError: as ``Executor.map``.
    """
    done = 0

    def tell(item: AnyItem) -> None:
        nonlocal done
        if not item.output.exists():
            raise WorkerError(
                f"{item.name} was computed, but {item.output} is not here: all workers must share this folder"
            )
        done += 1
        if finished is not None:
            finished(item)
        if progress is not None:
            progress(done, len(items))

    end_earlier_workers(folder)
    waiting = []
    for item in items:
        if item.output.exists():
            tell(item)
        else:
            waiting.append(item)
    if waiting:
        executor.map(work, waiting, folder, tell)
