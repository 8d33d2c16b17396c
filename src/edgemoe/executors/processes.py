"""Several processes of this machine, each with an equal share of its cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from edgemoe.errors import WorkerError
from edgemoe.executors.items import AnyItem, Item
from edgemoe.executors.worker import MAX_DEATHS, Call, calling
from edgemoe.native import usable_processors


class Processes:
    """As many processes as asked for; one that dies is replaced, and its item computed again."""

    def __init__(self, num_workers: int) -> None:
        self._num_workers = num_workers

    def check(self) -> None:
        """See Executor. Nothing can be missing."""

    def map(
        self,
        work: Callable[[AnyItem], None],
        items: Sequence[AnyItem],
        folder: Path,
        finished: Callable[[AnyItem], None],
    ) -> None:
        """See Executor."""
        waiting = deque(items)
        num_deaths = 0
        with calling(work, folder, max(1, usable_processors() // self._num_workers)) as call:
            workers = [_Worker(call) for _ in range(min(self._num_workers, len(items)))]
            try:
                while True:
                    for worker in workers:
                        if worker.item is None and waiting:
                            worker.begin(waiting.popleft())
                    busy = [worker for worker in workers if worker.item is not None]
                    if not busy:
                        return
                    ready = wait([worker.connection for worker in busy])
                    for worker in busy:
                        if worker.connection not in ready:
                            continue
                        item = worker.end()
                        if item is not None:
                            num_deaths = 0
                            finished(item)
                            continue
                        num_deaths += 1
                        if num_deaths >= MAX_DEATHS:
                            raise worker.death()
                        waiting.append(worker.item)
                        workers[workers.index(worker)] = _Worker(call)
            finally:
                for worker in workers:
                    worker.stop()


class _Worker:
    """A process of its own, begun anew rather than forked: threads of this one do not survive a fork."""

    def __init__(self, call: Call) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process: SpawnProcess = context.Process(target=_serve, args=(theirs, call), daemon=True)
        self._process.start()
        theirs.close()
        self.item: Any = None

    def begin(self, item: Item) -> None:
        """Give it work; a worker that has died shows at ``end``."""
        self.item = item
        with suppress(OSError):
            self.connection.send(item)

    def end(self) -> Any:
        """The item that it has finished; None, and the item stays its own, if the process has died.

        Raises:
            WorkerError: the item failed.
        """
        try:
            failure = self.connection.recv()
        except (EOFError, OSError):
            self._process.join()
            return None
        if failure is not None:
            raise failure.error()
        item, self.item = self.item, None
        return item

    def death(self) -> WorkerError:
        """What to say of a process that has died."""
        code = self._process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return WorkerError(
            f"{self.item.name}: its worker died ({how}), like {MAX_DEATHS - 1} before; if memory ran out,"
            " give a smaller --memory or fewer --workers. The same command goes on"
        )

    def stop(self) -> None:
        """End it, whatever it does."""
        self.connection.close()
        self._process.terminate()
        self._process.join()


def _serve(connection: Connection, call: Call) -> None:
    """Compute items until nobody sends any more. Ctrl-C is the parent's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, OSError):
        while True:
            connection.send(call(connection.recv()))


def _end_with_parent() -> None:
    """A parent that was killed waits for no item, and the command that goes on wants the memory."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "workers are begun by a process"
    parent.join()
    os._exit(1)
