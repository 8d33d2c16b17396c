"""What every worker does, wherever it runs: check that it belongs to the work, compute an item, report.

Errors become text: exceptions of one process need not be known to another, nor survive being pickled.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edgemoe.errors import EdgeMoEError, WorkerError
from edgemoe.executors.items import Item
from edgemoe.executors.mark import Mark, marked
from edgemoe.native import active_isa, set_num_threads

# Deaths of workers in a row, with no item finished between them, after which the work is at fault.
MAX_DEATHS = 3


@dataclass(frozen=True)
class Failure:
    """Why a worker did not finish an item."""

    item: str
    node: str
    reason: str

    def error(self) -> WorkerError:
        """As the caller is told."""
        return WorkerError(f"{self.item}, on {self.node}: {self.reason}")


@dataclass(frozen=True)
class Call:
    """The work as it travels to a worker, with what the worker must have in common with who sent it."""

    work: Callable[[Any], None]
    mark: Mark
    num_threads: int | None
    versions: str

    def __call__(self, item: Item) -> Failure | None:
        """Compute one item; None when its file is there."""
        node = socket.gethostname()
        try:
            self._refuse_stranger()
            if self.num_threads is not None:
                set_num_threads(self.num_threads)
            if not item.output.exists():
                self.work(item)
        except EdgeMoEError as error:
            return Failure(item.name, node, str(error))
        except Exception as error:
            return Failure(item.name, node, f"{type(error).__name__}: {error}")
        return None

    def _refuse_stranger(self) -> None:
        """Raises WorkerError where this process does not see the folder, or would compute other bits."""
        try:
            is_shared = self.mark.is_seen()
        except OSError:
            is_shared = False
        if not is_shared:
            raise WorkerError(
                f"{self.mark.path.parent} is not the folder that is there elsewhere; all nodes must share its"
                " storage"
            )
        if self.versions != _versions():
            raise WorkerError(
                f"this node has {_versions()}, the one that began {self.versions}: numbers would differ in"
                " their last bits; install the same, and set EDGEMOE_ISA to kernels that all nodes have"
            )


@contextmanager
def calling(work: Callable[[Any], None], folder: Path, num_threads: int | None) -> Iterator[Call]:
    """The work as workers take it, while a mark in the folder tells them that they see the same one."""
    with marked(folder) as mark:
        yield Call(work, mark, num_threads, _versions())


def _versions() -> str:
    """What the last bits of a result depend on."""
    return f"edgemoe {version('edgemoe')}, numpy {np.__version__}, {active_isa()} kernels"
