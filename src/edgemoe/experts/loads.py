"""Reads of experts under way: those demanded now, and those started on speculation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from edgemoe import native
from edgemoe.errors import EdgeMoEError, RequestError
from edgemoe.experts.cache import ExpertCache
from edgemoe.experts.catalog import ExpertKey
from edgemoe.native import ByteArray, compiled_reader
from edgemoe.store import ExpertReader, Store

# Every record is compared with its checksum the first time it is read ("first"), each time, or never.
VERIFY_MODES = ("first", "always", "never")


class Loads(native.Loads):
    """Brings experts into the cache; see ``native.streaming``. Used by one thread.

    A speculative read that fails or is damaged is forgotten: if the expert is needed it is demanded,
    tried anew, and then the error is raised.
    """

    def __init__(self, store: Store, reader: ExpertReader, cache: ExpertCache, verify: str) -> None:
        if verify not in VERIFY_MODES:
            raise RequestError(f"no verify mode {verify!r}; choose one of {', '.join(VERIFY_MODES)}")
        entries = [store.manifest.experts[key] for key in cache.catalog.keys]
        places = [(store.file_index(entry), entry.offset) for entry in entries]
        self._store = store
        self._keys = keys = cache.catalog.keys
        # Without self: compiled code that held it could never be freed.
        is_sound = partial(_is_sound, store, keys)
        super().__init__(cache, compiled_reader(reader), places, verify, is_sound)

    def wait(self, experts: Sequence[int]) -> list[int]:
        """Block until some of these demanded experts are in the cache; returns which.

        Raises:
            ExpertReadError: storage failed repeatedly.
            CorruptStoreError: an expert is damaged.
        """
        try:
            return super().wait(experts)
        except native.LoadFailed as failure:
            raise self.error(failure) from None

    def error(self, failure: native.LoadFailed) -> EdgeMoEError:
        """What to tell of an expert that is needed and cannot be had."""
        expert, reason = failure.args
        if reason is None:
            return self._store.damage_error(self._keys[expert])
        return self._store.read_error(self._keys[expert], reason)


def _is_sound(store: Store, keys: list[ExpertKey], expert: int, record: ByteArray) -> bool:
    return store.is_sound(keys[expert], record)
