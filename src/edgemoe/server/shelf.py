"""The stores a server offers: one model is in memory at a time, loaded when it is asked for."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from edgemoe.errors import RequestError
from edgemoe.server.failures import Failure
from edgemoe.server.local_model import LocalModel

Loader = Callable[[str, Path], LocalModel]


def name_stores(stores: Sequence[Path], aliases: Sequence[str]) -> dict[str, Path]:
    """The stores by the names that clients use: an alias each as far as they go, else the path's last part.

    Raises:
        RequestError: more aliases than stores, or two stores of one name.
    """
    if len(aliases) > len(stores):
        raise RequestError(f"{len(aliases)} aliases for {len(stores)} stores; give one for each at most")
    names = [*aliases, *(_folder_name(path) for path in stores[len(aliases) :])]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RequestError(f"two stores are called {twice!r}; give each its own --alias")
    return dict(zip(names, stores, strict=True))


def _folder_name(path: Path) -> str:
    # Not of what a link leads to: the Hub's cache and Ollama keep files under their checksums.
    name = Path(os.path.abspath(path)).name
    is_suffixed = name.lower().endswith((".store", ".gguf"))
    return (name[: name.rindex(".")] if is_suffixed else "") or name


class Shelf:
    """Hands out the model of a name, and swaps models when nobody uses the one in memory."""

    def __init__(self, stores: Mapping[str, Path], load: Loader) -> None:
        self.stores = dict(stores)
        self._load = load
        self._door = asyncio.Lock()  # first come, first served: nobody starves behind a popular model
        self._is_free = asyncio.Event()
        self._is_free.set()
        self._num_users = 0
        self._used_s = time.monotonic()
        self.resident: LocalModel | None = None

    @property
    def resident_name(self) -> str | None:
        """The model in memory."""
        return self.resident.name if self.resident else None

    @property
    def is_swapping(self) -> bool:
        """Whether somebody waits for another model, or for one to be loaded or unloaded."""
        return self._door.locked()

    def resolve(self, name: str) -> str:
        """The store's name for what a client asked for.

        Raises:
            Failure: there is no such model; the message names those there are.
        """
        if name in self.stores:
            return name
        for store in self.stores:
            if name == f"edgemoe/{store}" or name == str(self.stores[store]):
                return store
        if name in {"", "default", "edgemoe"}:
            return self.resident.name if self.resident else next(iter(self.stores))
        known = ", ".join(self.stores)
        message = f"The model {name[:200]!r} does not exist; this server has {known}"
        raise Failure(404, message, "model_not_found", "model")

    def load_first(self) -> None:
        """Load the first store, before the event loop runs. Errors as of ``edgemoe.load``."""
        name, path = next(iter(self.stores.items()))
        self.resident = self._load(name, path)

    @asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[LocalModel]:
        """The model of a name, loaded first if need be; it stays in memory while used.

        Raises:
            Failure: the store cannot be loaded (503 in a way that another try does not help).
        """
        async with self._door:
            if self.resident is None or self.resident.name != name:
                await self._is_free.wait()
                await _to_its_end(self._swap(name))
            self._enter()
        assert self.resident is not None
        try:
            yield self.resident
        finally:
            self._used_s = time.monotonic()
            self._leave()

    def _enter(self) -> None:
        self._num_users += 1
        self._is_free.clear()

    def _leave(self) -> None:
        self._num_users -= 1
        if self._num_users == 0:
            self._is_free.set()

    async def _swap(self, name: str) -> None:
        await self._unload()
        self.resident = await asyncio.to_thread(self._load, name, self.stores[name])

    async def _unload(self) -> None:
        if self.resident is not None:
            resident, self.resident = self.resident, None
            await asyncio.to_thread(resident.close)

    async def unload_if_idle(self, idle_s: float) -> bool:
        """Unload the model if nobody has used it for so long; whether it was."""
        async with self._door:
            is_idle = self._num_users == 0 and time.monotonic() - self._used_s >= idle_s
            if not is_idle or self.resident is None:
                return False
            await self._unload()
            return True

    async def park(self, should_stop: Callable[[], bool]) -> None:
        """Write texts to disk that have ended, if the model in memory does that."""
        async with self._door:
            parking = self.resident.parking if self.resident else None
            if parking is None or not parking.has_work:
                return
            self._enter()  # which is no use that keeps the model from being unloaded
        try:
            await _to_its_end(asyncio.to_thread(parking.write, should_stop))
        finally:
            self._leave()

    async def close(self) -> None:
        """Unload whatever is in memory once its users are done."""
        async with self._door:
            await self._is_free.wait()
            await self._unload()


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Work that goes on when its client leaves: a model half loaded would be in nobody's hands."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
