"""Responses and chat completions that clients may ask for again: in memory, within bounds, each for the key
that asked for it.

A response is kept with every item that it was made from, so each stands alone: what is forgotten or deleted
is missed by none that went on from it. Kept are compressed bytes; when there are too many, those go that
nobody has used for longest. Used by one event loop; ``pack`` and ``unpack`` may run in any thread.
"""

from __future__ import annotations

import json
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgemoe.server.openai.event_log import Entry

Item = Mapping[str, Any]
# What an entry takes beside its bytes: ids, tables, objects.
ENTRY_BYTES = 1024


@dataclass(frozen=True)
class Kept:
    """A response, the items that it was made from, and the events that told it, where those are kept."""

    response: dict[str, Any]  # grows while it is made
    items: Sequence[Item]
    events: Sequence[Entry] = ()

    @property
    def history(self) -> list[Item]:
        """What a response that goes on from this one begins with."""
        return [*self.items, *self.response["output"]]


@dataclass(frozen=True)
class Packed:
    """A response as it lies in memory."""

    response_id: str
    item_ids: tuple[str, ...]  # of its output
    content: bytes
    unpacked_bytes: int
    label: Mapping[str, Any]  # what it is found by

    @property
    def num_bytes(self) -> int:
        """What it takes."""
        return len(self.content) + len(json.dumps(self.label)) + ENTRY_BYTES

    def unpack(self) -> Kept:
        """The response itself."""
        return Kept(**json.loads(zlib.decompress(self.content)))


class StoredResponses:
    """The responses of all keys together."""

    def __init__(self, most: int, most_bytes: int) -> None:
        """At most so many, of so many bytes together."""
        self._most = most
        self.most_bytes = most_bytes
        self._num_bytes = 0
        self._entries: OrderedDict[tuple[str, str], Packed] = OrderedDict()  # by owner and id, as last used
        self._places: dict[tuple[str, str], str] = {}  # owner and item's id -> response's id

    def pack(self, kept: Kept, label: Mapping[str, Any] | None = None) -> Packed | None:
        """A response as it can be kept, with what it is found by; None if it alone is too large. Its events
        are left out where they would make it so.
        """
        text = json.dumps(vars(kept), separators=(",", ":"))
        if len(text) > self.most_bytes and kept.events:
            return self.pack(replace(kept, events=()), label)
        if len(text) > self.most_bytes:
            return None  # though it might fit when packed: packing and unpacking it would take long
        item_ids = tuple(item["id"] for item in kept.response.get("output", ()))
        content = zlib.compress(text.encode())
        packed = Packed(kept.response["id"], item_ids, content, len(text), label or {})
        return packed if packed.num_bytes <= self.most_bytes and self._most else None

    def keep(self, owner: str, packed: Packed) -> None:
        """Keep a response, in place of one with its id; others are forgotten for it."""
        self.forget(owner, packed.response_id)
        self._entries[owner, packed.response_id] = packed
        self._num_bytes += packed.num_bytes
        for item_id in packed.item_ids:
            self._places[owner, item_id] = packed.response_id
        while len(self._entries) > self._most or self._num_bytes > self.most_bytes:
            self.forget(*next(iter(self._entries)))

    def find(self, owner: str, response_id: str) -> Packed | None:
        """A response, if this owner has one of that id."""
        packed = self._entries.get((owner, response_id))
        if packed is not None:
            self._entries.move_to_end((owner, response_id))
        return packed

    def all_of(self, owner: str) -> list[Packed]:
        """All responses of an owner."""
        return [packed for (whose, _), packed in self._entries.items() if whose == owner]

    def find_item(self, owner: str, item_id: str) -> Packed | None:
        """The response that has such an item in its output."""
        response_id = self._places.get((owner, item_id))
        return None if response_id is None else self.find(owner, response_id)

    def forget(self, owner: str, response_id: str) -> bool:
        """Drop a response; whether there was one."""
        packed = self._entries.pop((owner, response_id), None)
        if packed is None:
            return False
        self._num_bytes -= packed.num_bytes
        for item_id in packed.item_ids:
            del self._places[owner, item_id]
        return True
