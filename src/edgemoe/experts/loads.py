"""Reads of experts under way: those demanded now, and those started on speculation."""

from __future__ import annotations

from collections.abc import Sequence

from edgemoe import native
from edgemoe.errors import EdgeMoEError, RequestError
from edgemoe.experts.cache import ExpertCache
from edgemoe.native import compiled_reader
from edgemoe.store import ExpertReader, Store

# Every record is compared with its checksum each time it is read, the first time, or never.
VERIFY_MODES = ("always", "first", "never")


class Loads(native.Loads):
    """Brings experts into the cache; see ``native.streaming``. Used by one thread.

    A speculative read that fails or is damaged is forgotten: if the expert is needed it is demanded,
    tried again, and then the error is raised.
    """

    def __init__(self, store: Store, reader: ExpertReader, cache: ExpertCache, verify: str) -> None:
        if verify not in VERIFY_MODES:
            raise RequestError(f"no verify mode {verify!r}; choose one of {', '.join(VERIFY_MODES)}")
        entries = [store.manifest.experts[key] for key in cache.catalog.keys]
        places = [(store.file_index(entry), entry.offset) for entry in entries]
        self._store = store
        self._keys = cache.catalog.keys
        # Stores that are put together of others, which nobody else can change, have none.
        checksums = [0 if verify == "never" else store.expert_checksum(key) for key in self._keys]
        super().__init__(cache, compiled_reader(reader), places, verify, checksums)

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

    def keep_checksums(self) -> None:
        """Let the store keep those that first reads have made."""
        self._store.keep_checksums(dict(zip(self._keys, self.checksums, strict=True)))

    def error(self, failure: native.LoadFailed) -> EdgeMoEError:
        """What to tell of an expert that is needed and cannot be had."""
        expert, reason = failure.args
        if reason is None:
            return self._store.damage_error(self._keys[expert])
        return self._store.read_error(self._keys[expert], reason)
