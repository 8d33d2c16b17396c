"""The seam to libraries that read objects over a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing_extensions import Buffer


@dataclass(frozen=True, slots=True)
class Received:
    """Bytes of an object. ``version`` changes when the object does; None: the server tells none."""

    data: Buffer
    version: str | None


class Objects(Protocol):
    """The objects of one folder. Used on the network's thread; any number of requests at a time."""

    async def read(self, name: str, start: int, stop: int) -> Received:
        """Bytes [start, stop); fewer where the object ends before.

        Raises:
            RemoteFailure: it failed.
        """
        ...

    async def get(self, name: str, known: str | None = None) -> Received | None:
        """A whole small object; None where its version is ``known``.

        Raises:
            RemoteFailure: it failed.
        """
        ...
