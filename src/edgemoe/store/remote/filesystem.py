"""Objects by fsspec, for addresses that nothing faster reads, such as ``sftp://`` and ``webhdfs://``."""

from __future__ import annotations

import asyncio
from typing import Any

from edgemoe.errors import RequestError
from edgemoe.store.remote.address import Address
from edgemoe.store.remote.failures import of_error
from edgemoe.store.remote.objects import Received


class FilesystemObjects:
    """See Objects; each request blocks a thread of its own."""

    def __init__(self, address: Address) -> None:
        import fsspec

        try:
            self._files, self._root = fsspec.core.url_to_fs(address.url)
        except Exception as error:
            raise RequestError(f"{address} cannot be opened: {_first_line(error)}") from None

    async def read(self, name: str, start: int, stop: int) -> Received:
        """See Objects; there is no version of a part."""
        path = f"{self._root}/{name}"
        return Received(await _in_thread(lambda: self._files.cat_file(path, start, stop)), None)

    async def get(self, name: str, known: str | None = None) -> Received | None:
        """See Objects."""
        path = f"{self._root}/{name}"
        version = str(await _in_thread(lambda: self._files.checksum(path)))
        if version == known:
            return None
        return Received(await _in_thread(lambda: self._files.cat_file(path)), version)


async def _in_thread(function: Any) -> Any:
    try:
        return await asyncio.to_thread(function)
    except Exception as error:
        raise of_error(error) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
