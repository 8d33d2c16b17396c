"""``edgemoe inspect``: what is in a store, whether it is whole, and where a budget would go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgemoe.cli.options import ContextOption, JsonOption, ModelArgument, unset
from edgemoe.cli.output import new_table, print_json, print_table, say, show_steps

if TYPE_CHECKING:
    from edgemoe.engine.memory import MemoryPlan
    from edgemoe.workflows.inspect import StoreFacts


def inspect(
    store: ModelArgument,
    memory: Annotated[
        str | None,
        unset("--memory", "SIZE", "Show how this budget, such as 2GiB, would be divided."),
    ] = None,
    context: ContextOption = None,
    verifies: Annotated[
        bool, typer.Option("--verify", help="Read the whole store and compare all checksums.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    r"""Show what a store holds, and how a memory budget would be divided.

    \b
    edgemoe inspect qwen.store
    edgemoe inspect qwen.store --memory 6GiB --context 8192
    edgemoe inspect qwen.store --verify
    edgemoe inspect hf://org/qwen.store
    edgemoe inspect qwen3-q4_k_m.gguf --memory 6GiB
    """
    from edgemoe.workflows.inspect import InspectOptions, inspect_store

    facts = inspect_store(store, InspectOptions(memory, context, verifies), steps=show_steps)
    if as_json:
        print_json(facts.to_json())
        return
    _print_store(facts)
    if facts.memory is not None:
        print_memory(facts.memory)
    if facts.is_verified:
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


def _print_store(facts: StoreFacts) -> None:
    from edgemoe.engine.defaults import describe_sampling
    from edgemoe.units import format_size

    kind = "a GGUF file, run as it is" if facts.is_gguf else f"store version {facts.version}"
    say(f"{facts.store}: {facts.model_type}, {kind}")
    besides = facts.text_bytes_besides
    more = f", and {format_size(besides)} besides" if besides else ""
    print(f"context   {facts.max_context} tokens")
    print(f"a text    {format_size(facts.text_bytes_per_token)} a token{more}")
    print(f"text      {_text_of(facts)}")
    print(f"sampling  {describe_sampling(facts.sampling_defaults)}")
    print(f"forecasts {_forecasts_of(facts)}")
    if not facts.is_gguf:
        print(f"made      {_origin_of(facts)}")
    table = new_table("file" if facts.is_gguf else "store", "part", "count", "formats", "size")
    for part, count, formats, num_bytes in (
        ("dense", facts.num_dense, facts.dense_formats, facts.dense_bytes),
        ("expert", facts.num_experts, facts.expert_formats, facts.expert_bytes),
    ):
        named = ", ".join(f"{name} ×{number}" for name, number in formats.items())
        table.add_row(part, str(count), named, format_size(num_bytes))
    if facts.mtp_bytes:
        table.add_row("layer for further tokens", "1", "", format_size(facts.mtp_bytes))
    table.add_row("all", "", "", format_size(facts.num_bytes))
    print_table(table)


def _text_of(facts: StoreFacts) -> str:
    if not facts.has_tokenizer:
        return "no tokenizer: takes token ids only"
    return "tokenizer and chat template" if facts.has_chat_template else "tokenizer, no chat template"


def _forecasts_of(facts: StoreFacts) -> str:
    if facts.is_gguf:
        return "not fitted; only those of a store can be: edgemoe convert"
    return "fitted" if facts.is_fitted else "not fitted yet: edgemoe trace, then edgemoe fit"


def _origin_of(facts: StoreFacts) -> str:
    """Which program made the store, from what, and how its widths were chosen."""
    plan = facts.plan
    source = f" from {plan['source']}" if "source" in plan else ""
    return f"by {facts.generator}{source}, plan: {plan.get('kind', 'unknown')}"
