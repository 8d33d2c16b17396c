"""A small store that drafts for a large one: whether it can, and the memory that it takes beside it."""

from __future__ import annotations

from dataclasses import dataclass

from edgemoe.engine.drafting.mtp_drafter import MOST_WAITING
from edgemoe.engine.memory import (
    STEP_SIZES,
    MemoryNeeds,
    MemoryPlan,
    most_answers,
    plan_memory,
    resident_budget,
    working_bytes,
)
from edgemoe.engine.stored_weights import check_store
from edgemoe.errors import RequestError
from edgemoe.models import ModelSpec, MtpSpec, mtp_of, read_spec
from edgemoe.store import Store
from edgemoe.text import Tokenizer
from edgemoe.units import MIB

# Parts of a plan that a process has once, however many models it runs.
_SHARED = ("process", "allocator_margin")
# What the process may grow by between two looks at it: no part of what the model takes.
_SLACK_BYTES = 64 * MIB


@dataclass(frozen=True)
class DraftPlan:
    """A small model beside a large one, with all of its experts in memory."""

    spec: ModelSpec
    store: Store
    memory: MemoryPlan
    num_bytes: int  # that it adds to what the process takes


def plan_draft(
    store: Store, large: Store, spec: ModelSpec, context: int, kv_format: str, num_texts: int
) -> DraftPlan:
    """What the small ``store`` takes beside the ``large`` one, which ``spec`` is of, for as many texts.

    Raises:
        RequestError: it has another tokenizer, or cannot draft.
        StoreError: it does not fit its configuration.
    """
    small = read_spec(store.config)
    check_store(small, store)
    if small.has_encoder:
        raise RequestError(f"{store.name} cannot draft: {small.family} has an encoder")
    _check_tokenizers(store, small, large, spec)
    context = min(context, small.max_context)
    needs = MemoryNeeds(context, num_texts, kv_format)
    budget = resident_budget(small, store.manifest, needs)
    budget += working_bytes(small, STEP_SIZES[0], context, most_answers(num_texts)) + _SLACK_BYTES
    memory = plan_memory(small, store.manifest, budget, needs)
    num_bytes = sum(item.num_bytes for item in memory.items if item.key not in _SHARED)
    return DraftPlan(small, store, memory, num_bytes)


@dataclass(frozen=True)
class MtpPlan:
    """A store's layer for further tokens, with all of its experts in memory: every draft uses some."""

    spec: MtpSpec
    store: Store  # that layer's part of it
    context: int
    state_bytes: int
    expert_bytes: int
    num_bytes: int


def plan_mtp(store: Store, spec: ModelSpec, context: int, kv_format: str, num_texts: int) -> MtpPlan | None:
    """What the layer for further tokens takes beside a store's model; None where the store has none.

    Raises:
        StoreError: it does not fit the configuration.
    """
    mtp, manifest = mtp_of(spec), store.manifest.mtp_alone()
    if mtp is None or manifest is None:
        return None
    part = store.part(manifest)
    check_store(mtp.model, part, mtp.dense_tensors())
    state_bytes = num_texts * mtp.model.state_num_bytes(context, kv_format)
    expert_bytes = sum(entry.num_bytes for entry in manifest.experts.values())
    dense_bytes = sum(entry.num_bytes for entry in manifest.dense.values())
    # Rows that wait, beside those that a step works on; what it joins is as wide as two.
    rows_bytes = 4 * 4 * spec.width * 2 * MOST_WAITING
    working = working_bytes(mtp.model, MOST_WAITING, context) + rows_bytes
    num_bytes = state_bytes + expert_bytes + dense_bytes + working
    return MtpPlan(mtp, part, context, state_bytes, expert_bytes, num_bytes)


def _check_tokenizers(store: Store, small: ModelSpec, large: Store, spec: ModelSpec) -> None:
    """Refuse a model whose tokens are others."""
    own, other = (s.manifest.checksums.get("tokenizer.json") for s in (store, large))
    if own == other and (own is not None or small.vocab_size == spec.vocab_size):
        return
    tokenizers = [Tokenizer(s.path, s.config) for s in (store, large)]
    if all(t.is_available for t in tokenizers) and tokenizers[0].vocabulary == tokenizers[1].vocabulary:
        return
    raise RequestError(
        f"{store.name} cannot draft for {large.name}: their tokenizers differ; give one of the same tokens"
    )
