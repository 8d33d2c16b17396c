"""What ``/v1/models`` says of a store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from edgemoe.server.failures import refused
from edgemoe.server.shelf import Shelf


def list_models(shelf: Shelf, query: Mapping[str, str]) -> dict[str, Any]:
    """All models, or the part that Anthropic's ``limit``, ``after_id`` and ``before_id`` ask for.

    Raises:
        Failure: they are no numbers or no names.
    """
    names = list(shelf.stores)
    after, before, wanted = query.get("after_id"), query.get("before_id"), query.get("limit", "1000")
    for field, name in (("after_id", after), ("before_id", before)):
        if name is not None and name not in names:
            raise refused(field, f"there is no model {name[:200]!r}")
    if not wanted.isascii() or not wanted.isdecimal() or not 1 <= int(wanted[:9]) <= 1000:
        raise refused("limit", "must be a whole number from 1 to 1000")
    limit = int(wanted)
    if before is not None:
        names = names[: names.index(before)]
        part = names[-limit:]
    else:
        names = names[names.index(after) + 1 :] if after is not None else names
        part = names[:limit]
    ends = {"first_id": part[0] if part else None, "last_id": part[-1] if part else None}
    entries = [describe(shelf, name) for name in part]
    return {"object": "list", "data": entries, **ends, "has_more": len(part) < len(names)}


def describe(shelf: Shelf, name: str) -> dict[str, Any]:
    """One model, with the fields of OpenAI's list and of Anthropic's."""
    path = shelf.stores[name]
    created = int(path.stat().st_mtime) if path.exists() else 0
    entry: dict[str, Any] = {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "edgemoe",
        "type": "model",
        "display_name": name,
        "lifecycle": "active",
        "created_at": datetime.fromtimestamp(created, timezone.utc).isoformat().replace("+00:00", "Z"),
    }
    resident = shelf.resident
    if resident is not None and resident.name == name:
        memory, spec = resident.model.memory, resident.model.spec
        meta = {"n_ctx": resident.context, "n_ctx_train": spec.max_context, "n_vocab": spec.vocab_size}
        meta |= {"n_embd": spec.width, "budget_bytes": memory.budget_bytes, "is_loaded": True}
        room = dict.fromkeys(("max_model_len", "max_input_tokens", "max_tokens"), resident.context)
        return entry | {"meta": meta} | room
    return entry | {"meta": {"is_loaded": False}}
