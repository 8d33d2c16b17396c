"""Which library reads at which address; none is imported before it is needed."""

from __future__ import annotations

from importlib.util import find_spec

from edgemoe.errors import RequestError
from edgemoe.store.remote.address import HUB, OBJECT_STORES, WEB, Address
from edgemoe.store.remote.objects import Objects


def open_objects(address: Address) -> Objects:
    """Who reads at this address; nothing is asked of the network yet.

    Raises:
        RequestError: the library is not installed, or refuses the address.
    """
    if address.scheme == HUB:
        from edgemoe.store.remote.hub import HubObjects

        return HubObjects(address)
    if address.scheme in (*OBJECT_STORES, *WEB):
        if find_spec("obstore") is None:
            raise RequestError(f"{address.scheme}:// needs obstore: pip install 'edgemoe[remote]'")
        from edgemoe.store.remote.object_store import ObstoreObjects

        return ObstoreObjects(address)
    from edgemoe.store.remote.filesystem import FilesystemObjects

    return FilesystemObjects(address)
