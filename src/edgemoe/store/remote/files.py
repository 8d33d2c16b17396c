"""The files of a store at an address: requests that fail for a moment are made again, later and later."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from edgemoe.native import ByteArray
from edgemoe.store.remote.address import Address
from edgemoe.store.remote.failures import RemoteFailure
from edgemoe.store.remote.libraries import open_objects
from edgemoe.store.remote.objects import Objects

if TYPE_CHECKING:
    from typing_extensions import Buffer

_T = TypeVar("_T")

NUM_TRIES = 5
# Before the second try; doubled from then on, and drawn between half of it and all, so that requests that
# failed together do not come back together.
FIRST_PAUSE_S = 0.2
MOST_PAUSE_S = 5.0


class RemoteFiles:
    """Used on the network's thread, but for what is plain to read."""

    def __init__(self, address: Address, objects: Objects | None = None) -> None:
        self.address = address
        self.num_retries = 0
        self.changed: set[str] = set()  # files whose version was another at a later request
        self._objects = open_objects(address) if objects is None else objects
        self._versions: dict[str, str] = {}

    async def read(self, name: str, start: int, stop: int, num_tries: int = NUM_TRIES) -> ByteArray:
        """Bytes [start, stop) of a file.

        Raises:
            RemoteFailure: they cannot be had.
        """

        async def once() -> ByteArray:
            received = await self._objects.read(name, start, stop)
            data: ByteArray = np.frombuffer(memoryview(received.data), np.uint8)
            self._note(name, received.version)
            if len(data) != stop - start:
                raise RemoteFailure("unexpected end of file", is_lasting=False)
            return data

        return await self._retrying(once, num_tries)

    async def get(self, name: str, known: str | None = None) -> tuple[Buffer, str | None] | None:
        """A whole small file and its version; None where that is ``known``.

        Raises:
            RemoteFailure: it cannot be had.
        """

        async def once() -> tuple[Buffer, str | None] | None:
            received = await self._objects.get(name, known)
            return None if received is None else (received.data, received.version)

        return await self._retrying(once, NUM_TRIES)

    def _note(self, name: str, version: str | None) -> None:
        if version is not None and self._versions.setdefault(name, version) != version:
            self.changed.add(name)

    async def _retrying(self, once: Callable[[], Awaitable[_T]], num_tries: int) -> _T:
        pause_s = FIRST_PAUSE_S
        for left in range(num_tries - 1, -1, -1):
            try:
                return await once()
            except RemoteFailure as failure:
                if failure.is_lasting or left == 0:
                    raise
            self.num_retries += 1
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))
            pause_s = min(2 * pause_s, MOST_PAUSE_S)
        raise AssertionError("the last try returns or raises")
