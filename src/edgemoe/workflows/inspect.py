"""What is in a store, whether it is whole, and where a budget would go: ``inspect_store``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgemoe.convert import open_runnable
from edgemoe.engine.defaults import read_sampling_defaults
from edgemoe.engine.memory import MemoryNeeds, MemoryPlan, plan_memory
from edgemoe.engine.store_needs import needs_of
from edgemoe.errors import CorruptStoreError, RequestError
from edgemoe.experts.fitted import find_fitted
from edgemoe.models import ModelSpec, read_spec
from edgemoe.progress import ShowSteps, unseen
from edgemoe.store import BlockStore, Manifest, Store
from edgemoe.store.format import VERSION
from edgemoe.text import Tokenizer
from edgemoe.units import parse_size


@dataclass(frozen=True)
class InspectOptions:
    """What is looked at; checked when it is made.

    ``memory``: a budget to divide, for texts of ``context`` tokens. ``verifies``: read everything and compare
    all checksums.

    Raises:
        RequestError: there is no such size, or a context without a budget.
    """

    memory: str | int | None = None
    context: int | None = None
    verifies: bool = False

    def __post_init__(self) -> None:
        if self.memory is not None:
            parse_size(self.memory)
        elif self.context is not None:
            raise RequestError("--context belongs to a budget; give --memory too")


@dataclass(frozen=True)
class StoreFacts:
    """A store's content. Sizes in bytes; formats with the number of matrices, or experts, that have them.

    A text takes ``text_bytes_per_token`` of memory a token and ``text_bytes_besides`` whatever its length.
    ``num_dense`` counts the tensors that every token needs. ``is_gguf``: it is a GGUF file, as it is run.
    """

    store: str
    is_gguf: bool
    version: int
    model_type: str | None
    max_context: int
    text_bytes_per_token: int
    text_bytes_besides: int
    has_tokenizer: bool
    has_chat_template: bool
    sampling_defaults: Mapping[str, float]
    is_fitted: bool
    plan: Mapping[str, Any]
    generator: str
    num_layers: int
    num_experts: int
    num_dense: int
    num_bytes: int
    dense_bytes: int
    expert_bytes: int
    mtp_bytes: int
    dense_formats: Mapping[str, int]
    expert_formats: Mapping[str, int]
    memory: MemoryPlan | None
    is_verified: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        memory = None if self.memory is None else self.memory.to_json()
        return {**asdict(replace(self, memory=None)), "memory": memory}


def inspect_store(
    store: str | Path, options: InspectOptions | None = None, *, steps: ShowSteps = unseen
) -> StoreFacts:
    """What a store or a GGUF file holds and, if a budget is given, where every byte of it would go.

    Raises:
        BudgetError: the budget cannot work.
        CorruptStoreError: a checksum is wrong.
        CheckpointError: a GGUF file cannot be run.
        RequestError: checksums of a GGUF file are to be compared; it has none.
        StoreError: the store cannot be used.
    """
    options, opened = options or InspectOptions(), open_runnable(store)
    if options.verifies and isinstance(opened, BlockStore):
        raise RequestError(
            f"{opened.name}: a GGUF file has no checksums to compare; convert it, or compare the file's own"
            " (sha256sum) with the one that its publisher gives"
        )
    spec = read_spec(opened.config)
    memory = _divided(opened, spec, options)
    if options.verifies:
        with steps("verifying", "bytes") as advance:
            damages = list(opened.verify(advance))
        if damages:
            more = f" (and {len(damages) - 1} more damaged parts)" if len(damages) > 1 else ""
            raise CorruptStoreError(damages[0] + more)
    return _facts(opened, spec, memory, is_verified=options.verifies)


def _divided(store: Store, spec: ModelSpec, options: InspectOptions) -> MemoryPlan | None:
    if options.memory is None:
        return None
    needs = needs_of(spec, store, MemoryNeeds(options.context))
    return plan_memory(spec, store.manifest, parse_size(options.memory), needs)


def _facts(store: Store, spec: ModelSpec, memory: MemoryPlan | None, *, is_verified: bool) -> StoreFacts:
    manifest, tokenizer = store.manifest, Tokenizer(store.path, store.config)
    dense, experts = manifest.dense.values(), manifest.experts.values()
    dense_bytes = sum(entry.num_bytes for entry in dense)
    expert_bytes = sum(entry.num_bytes for entry in experts)
    mtp_bytes = _mtp_bytes(manifest)
    per_token, besides = spec.text_num_bytes()
    return StoreFacts(
        store=store.name,
        is_gguf=isinstance(store, BlockStore),
        version=VERSION,
        model_type=store.config.get("model_type"),
        max_context=spec.max_context,
        text_bytes_per_token=per_token,
        text_bytes_besides=besides,
        has_tokenizer=tokenizer.is_available,
        has_chat_template=bool(tokenizer.chat_templates()),
        sampling_defaults=read_sampling_defaults(store.path),
        is_fitted=find_fitted(store) is not None,
        plan=dict(manifest.plan),
        generator=manifest.generator,
        num_layers=len({layer for layer, _ in manifest.experts}),
        num_experts=len(experts),
        num_dense=len(dense),
        num_bytes=dense_bytes + expert_bytes + mtp_bytes,
        dense_bytes=dense_bytes,
        expert_bytes=expert_bytes,
        mtp_bytes=mtp_bytes,
        dense_formats=dict(Counter(entry.format for entry in dense)),
        expert_formats=dict(Counter("/".join(entry.formats.to_json()) for entry in experts)),
        memory=memory,
        is_verified=is_verified,
    )


def _mtp_bytes(manifest: Manifest) -> int:
    """Bytes of a layer that predicts further tokens."""
    if manifest.mtp is None:
        return 0
    dense = sum(entry.num_bytes for entry in manifest.mtp.dense.values())
    return dense + sum(entry.num_bytes for entry in manifest.mtp.experts.values())
