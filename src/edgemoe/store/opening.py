"""Opens a store by what people write for it: a folder, a name in the library, or a URL."""

from __future__ import annotations

import re
from pathlib import Path

from edgemoe.errors import RequestError
from edgemoe.store.store import Store
from edgemoe.store.store import open_store as open_folder


def open_store(path: str | Path, *, checks_attached: bool = True) -> Store:
    """Open a store: a folder, a name of the user's library, or a URL such as ``s3://bucket/store``.

    See ``store.store`` and ``store.remote``; ``checks_attached`` is for who adds a file to it.

    Raises:
        NotAStoreError: there is none.
        StoreError: it cannot be used, or not reached.
        RequestError: the URL is none that stores are read from, or a file cannot be added there.
    """
    if ":/" not in str(path) and not str(path).startswith(_MEANT):
        return open_folder(path, checks_attached=checks_attached)
    # Only here: what reads over a network takes time to import.
    from edgemoe.store.remote.address import parse_address
    from edgemoe.store.remote.remote_store import open_remote_store

    address = parse_address(path)
    if address is None:
        return open_folder(path, checks_attached=checks_attached)
    if not checks_attached:
        raise RequestError(f"{address}: nothing can be added there; fit a copy on this disk, then upload it")
    return open_remote_store(address)


def shown_name(path: str | Path) -> str:
    """What a message calls a store: as it was written, but for a password in its URL."""
    found = _URL.fullmatch(str(path))
    if found is None or Path(path).exists():
        return str(path)
    return re.sub(r"//[^/@]*@", "//", f"{found[1]}://{found[2]}")


_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/+(.*)")
_MEANT = ("s3:", "gs:", "az:", "https:", "http:", "hf:")
