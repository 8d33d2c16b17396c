"""``edgemoe inspect``: what is in a store, whether it is whole, and where a budget would go."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemoe.cli.options import ContextOption, JsonOption, StoreArgument
from edgemoe.cli.output import byte_progress, new_table, print_json, print_table, say
from edgemoe.errors import RequestError

if TYPE_CHECKING:
    from edgemoe.engine.memory import MemoryPlan
    from edgemoe.store import Store


def inspect(
    store: StoreArgument,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            metavar="SIZE",
            help="Show where every byte of this budget would go, such as 2GiB.",
            show_default=False,
        ),
    ] = None,
    context: ContextOption = None,
    verifies: Annotated[
        bool, typer.Option("--verify", help="Read everything and compare all checksums.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    r"""Show what a store holds and where a budget would go.

    \b
    edgemoe inspect qwen.store
    edgemoe inspect qwen.store --memory 6GiB --context 8192
    edgemoe inspect qwen.store --verify
    edgemoe inspect hf://organisation/qwen.store
    """
    from edgemoe.store import open_store

    opened = open_store(store)
    plan = _memory_plan(opened, memory, context)
    if verifies:
        _verify(opened)
    if as_json:
        print_json(
            {
                **_describe(opened),
                "memory": None if plan is None else plan.to_json(),
                "is_verified": verifies,
            }
        )
        return
    _print_store(opened)
    if plan is not None:
        print_memory(plan)
    if verifies:
        print("every checksum is right")


def print_memory(plan: MemoryPlan) -> None:
    """Table of where every byte of the budget goes."""
    from edgemoe.units import format_size

    table = new_table(f"budget {format_size(plan.budget_bytes)}", "part", "size", "share")
    for item in plan.items:
        table.add_row(item.label, format_size(item.num_bytes), f"{item.num_bytes / plan.budget_bytes:.1%}")
    print_table(table)
    if plan.is_resident:
        print("resident: every expert stays in memory, nothing is read while the model answers")
    else:
        print(f"streaming: {format_size(plan.expert_cache_bytes)} of experts stay in memory")
    print(f"smallest workable budget: {format_size(plan.smallest_num_bytes)}")


def _memory_plan(store: Store, memory: str | None, context: int | None) -> MemoryPlan | None:
    """The plan for the budget asked for; none asked for: no plan."""
    if memory is None:
        if context is not None:
            raise RequestError("--context belongs to a budget; give --memory too")
        return None
    from edgemoe.engine.memory import plan_memory
    from edgemoe.engine.prediction import predictor_num_bytes
    from edgemoe.models.families import read_spec
    from edgemoe.units import parse_size

    spec = read_spec(store.config)
    predictor_bytes = predictor_num_bytes(spec, store)
    return plan_memory(spec, store.manifest, parse_size(memory), context, predictor_bytes=predictor_bytes)


def _verify(store: Store) -> None:
    from edgemoe.errors import CorruptStoreError

    with byte_progress("verifying") as advance:
        damages = list(store.verify(advance))
    if damages:
        more = f" (and {len(damages) - 1} more damaged parts)" if len(damages) > 1 else ""
        raise CorruptStoreError(damages[0] + more)


def _describe(store: Store) -> dict[str, Any]:
    from edgemoe.engine.defaults import read_sampling_defaults
    from edgemoe.experts.fitted import find_fitted
    from edgemoe.models import read_spec
    from edgemoe.store.format import VERSION
    from edgemoe.text import Tokenizer

    manifest = store.manifest
    experts = manifest.experts.values()
    mtp_bytes = 0
    if manifest.mtp is not None:
        mtp_bytes += sum(entry.num_bytes for entry in manifest.mtp.dense.values())
        mtp_bytes += sum(entry.num_bytes for entry in manifest.mtp.experts.values())
    dense_bytes = sum(entry.num_bytes for entry in manifest.dense.values())
    expert_bytes = sum(entry.num_bytes for entry in experts)
    spec = read_spec(store.config)
    per_token, besides = spec.text_num_bytes()
    tokenizer = Tokenizer(store.path, store.config)
    return {
        "store": store.name,
        "version": VERSION,
        "model_type": store.config.get("model_type"),
        "max_context": spec.max_context,
        "text_bytes_per_token": per_token,
        "text_bytes_besides": besides,
        "has_tokenizer": tokenizer.is_available,
        "has_chat_template": bool(tokenizer.template_names()),
        "sampling_defaults": read_sampling_defaults(store.path),
        "is_fitted": find_fitted(store) is not None,
        "plan": dict(manifest.plan),
        "generator": manifest.generator,
        "num_layers": len({layer for layer, _ in manifest.experts}),
        "num_experts": len(manifest.experts),
        "num_bytes": dense_bytes + expert_bytes + mtp_bytes,
        "dense_bytes": dense_bytes,
        "expert_bytes": expert_bytes,
        "dense_formats": dict(Counter(entry.format for entry in manifest.dense.values())),
        "mtp_bytes": mtp_bytes,
        "expert_formats": dict(Counter("/".join(entry.formats.to_json()) for entry in experts)),
    }


def _print_store(store: Store) -> None:
    from edgemoe.engine.defaults import describe_sampling
    from edgemoe.units import format_size

    record = _describe(store)
    say(f"{store.name}: {record['model_type']}, store version {record['version']}")
    besides = record["text_bytes_besides"]
    more = f", and {format_size(besides)} besides" if besides else ""
    print(f"context   {record['max_context']} tokens")
    print(f"a text    {format_size(record['text_bytes_per_token'])} a token{more}")
    print(f"text      {_text_of(record)}")
    print(f"drawing   {describe_sampling(record['sampling_defaults'])}")
    fitted = "fitted" if record["is_fitted"] else "not fitted yet: edgemoe trace, then edgemoe fit"
    print(f"forecasts {fitted}")
    print(f"made      {_origin_of(record)}")
    table = new_table("store", "part", "count", "formats", "size")
    for part, count in (("dense", len(store.manifest.dense)), ("expert", record["num_experts"])):
        formats = ", ".join(f"{name} ×{number}" for name, number in record[f"{part}_formats"].items())
        table.add_row(part, str(count), formats, format_size(record[f"{part}_bytes"]))
    if record["mtp_bytes"]:
        table.add_row("layer for further tokens", "1", "", format_size(record["mtp_bytes"]))
    table.add_row("all", "", "", format_size(record["num_bytes"]))
    print_table(table)


def _text_of(record: dict[str, Any]) -> str:
    if not record["has_tokenizer"]:
        return "no tokenizer: takes token ids only"
    return "tokenizer and chat template" if record["has_chat_template"] else "tokenizer, no chat template"


def _origin_of(record: dict[str, Any]) -> str:
    """Which program made the store, from what, and how its widths were chosen."""
    plan = record["plan"]
    source = f" from {plan['source']}" if "source" in plan else ""
    return f"by {record['generator']}{source}, plan: {plan.get('kind', 'unknown')}"
