"""What ``/v1/models`` says of a store."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from edgemoe.server.shelf import Shelf


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
        "created_at": datetime.fromtimestamp(created, timezone.utc).isoformat().replace("+00:00", "Z"),
    }
    resident = shelf.resident
    if resident is not None and resident.name == name:
        memory, spec = resident.model.memory, resident.model.spec
        meta = {"n_ctx": resident.context, "n_ctx_train": spec.max_context, "n_vocab": spec.vocab_size}
        meta |= {"n_embd": spec.width, "budget_bytes": memory.budget_bytes, "is_loaded": True}
        return entry | {"meta": meta, "max_model_len": resident.context}
    return entry | {"meta": {"is_loaded": False}}
