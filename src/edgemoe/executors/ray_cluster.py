"""The nodes of a Ray cluster, by tasks of Ray Core: a task for every item."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgemoe.errors import RequestError, WorkerError
from edgemoe.executors.items import AnyItem, Item
from edgemoe.executors.worker import MAX_DEATHS, Call, Failure, calling

_PATIENCE_S = 5.0
# Ray prints on stdout, where a command's one JSON object goes, how each worker died that it replaces. What
# matches this is not printed; Ray reads it when it is first imported.
_UNPRINTED = "RAY_DEDUP_LOGS_SKIP_REGEX"


class RayCluster:
    """A running cluster, or one that begins on this machine where there is none.

    ``address`` is what ray.init takes: None for RAY_ADDRESS, the cluster of this machine or a new one;
    "host:6379"; or "ray://host:10001" for a cluster that this machine is no part of. A worker gets
    ``num_cpus`` cores, by default all of the smallest node, and Ray is told that it takes ``memory_bytes``.
    """

    def __init__(
        self,
        address: str | None = None,
        num_workers: int | None = None,
        num_cpus: int | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        self._address, self._num_workers = address, num_workers
        self._num_cpus, self._memory_bytes = num_cpus, memory_bytes

    def check(self) -> None:
        """See Executor."""
        self._open()

    def map(
        self,
        work: Callable[[AnyItem], None],
        items: Sequence[AnyItem],
        folder: Path,
        finished: Callable[[AnyItem], None],
    ) -> None:
        """See Executor."""
        ray, num_cpus = self._open()
        most = self._num_workers or len(items)
        needs = {} if self._memory_bytes is None else {"memory": self._memory_bytes}
        options = {
            "num_cpus": num_cpus,
            "max_retries": MAX_DEATHS - 1,
            "scheduling_strategy": "SPREAD",
            **needs,
        }
        with calling(work, folder, num_cpus) as call:
            compute = ray.remote(**options)(_compute)
            waiting = list(reversed(items))
            running: dict[Any, AnyItem] = {}
            try:
                while waiting or running:
                    while waiting and len(running) < most:
                        item = waiting.pop()
                        running[compute.remote(call, item)] = item
                    ready, _ = ray.wait(list(running))
                    for task in ready:
                        _take(ray, task, running[task].name)
                        finished(running.pop(task))
            finally:
                for task in running:
                    ray.cancel(task, force=True)

    def _open(self) -> tuple[Any, int]:
        """The connected module, and the cores of a worker."""
        ray = _connect(self._address)
        num_cpus = self._num_cpus or _fewest_cpus(ray)
        _refuse_too_large(ray, num_cpus, self._memory_bytes)
        return ray, num_cpus


def _compute(call: Call, item: Item) -> Failure | None:
    return call(item)


def _connect(address: str | None) -> Any:
    """The module, connected. A connection that is there already, of whoever, is used."""
    os.environ.setdefault(_UNPRINTED, ".")
    try:
        import ray
    except ImportError:
        raise RequestError("--executor ray needs Ray Core: pip install 'edgemoe[ray]'") from None
    if ray.is_initialized():
        return ray
    _refuse_unreachable(address or os.environ.get("RAY_ADDRESS", ""))
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except ImportError:
        raise RequestError(
            f"{address} needs Ray's client: pip install 'ray[client]'; or begin on a node of the cluster"
        ) from None
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise WorkerError(
            f"no Ray cluster answers at {address or 'RAY_ADDRESS or on this machine'}: {error}"
        ) from error
    return ray


def _refuse_unreachable(address: str) -> None:
    """Ray would try for minutes."""
    host, sign, port = address.removeprefix("ray://").rpartition(":")
    if not (sign and port.isdecimal()):
        return
    try:
        socket.create_connection((host, int(port)), _PATIENCE_S).close()
    except OSError as error:
        raise WorkerError(f"no Ray cluster answers at {address}: {error.strerror or error}") from None


def _nodes(ray: Any) -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]


def _fewest_cpus(ray: Any) -> int:
    return int(min(node["CPU"] for node in _nodes(ray)))


def _refuse_too_large(ray: Any, num_cpus: int, memory_bytes: int | None) -> None:
    """Ray would wait for ever for a node that can take a task that is larger than all of them."""
    fits = [n for n in _nodes(ray) if n["CPU"] >= num_cpus and n.get("memory", 0) >= (memory_bytes or 0)]
    if not fits:
        raise WorkerError(
            f"no node of the Ray cluster has {num_cpus} cores and the memory that a worker is to take; give a"
            " smaller --memory or --worker-cores"
        )


def _take(ray: Any, task: Any, name: str) -> None:
    """Raises WorkerError if an item was not computed."""
    try:
        failure = ray.get(task)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise WorkerError(
            f"{name}: its worker died or could not begin, {MAX_DEATHS} times; what Ray says: {reason}"
        ) from error
    if failure is not None:
        raise failure.error()
