"""Where every byte of the budget goes; decided, and refused if it cannot work, before anything is loaded.

The budget caps the whole process. What is not the expert cache is fixed by the model and the context; the
cache gets the rest.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgemoe.engine.batch import MOST_ANSWERS
from edgemoe.engine.budget import check_budget, default_budget
from edgemoe.engine.machine import resident_bytes
from edgemoe.errors import BudgetError, RequestError
from edgemoe.models import ModelSpec
from edgemoe.store import Manifest
from edgemoe.units import MIB, ceil_size, format_size

# Python, NumPy, the tokenizer library and compiled code, measured with room for the command line's parts.
PROCESS_BYTES = 72 * MIB
# A loaded tokenizer takes a multiple of its file: strings, hash tables, merges.
TOKENIZER_FACTOR = 12
# Of each token of a vocabulary, as llguidance knows it and as it reads within JSON: 1,070 were measured.
GRAMMAR_BYTES = 1200
# What the C allocator keeps back between calls, measured at its worst.
ALLOCATOR_MARGIN_BYTES = 12 * MIB
DEFAULT_CONTEXT = 4096
# For models with an encoder, which holds a whole prompt at once: what they were trained with.
DEFAULT_PROMPT = 512
# Tokens of a prompt that pass through a layer together: large amortises reading experts, small saves memory.
CHUNK_SIZES = (512, 256, 128, 64, 32, 16)
# With room for several texts: two prompts at once, for which each layer reads its experts once.
STEP_SIZES = (2 * CHUNK_SIZES[0], *CHUNK_SIZES)
# A chunk may take this share of what the fixed parts leave.
CHUNK_SHARE = 0.125
# Arrays of a step's rows that layers hold while a part runs: the residual stream, its norm, what the part
# gives, and what was run beside it.
_HELD_ROWS = 4
# Positions whose logits are held at a time when all of a text's are wanted.
HEAD_ROWS = 16


@dataclass(frozen=True)
class MemoryItem:
    """One part of the budget: ``key`` is an identifier that stays, ``label`` says it to people."""

    key: str
    label: str
    num_bytes: int


@dataclass(frozen=True)
class MemoryNeeds:
    """What a budget must have room for besides the weights; sizes in bytes."""

    context: int | None = None  # tokens of the longest text; None: ``DEFAULT_CONTEXT``, or the model's most
    num_texts: int = 1  # whole contexts at once, or more shorter texts
    kv_format: str = "f16"
    cache_bytes: int | None = None  # cap on the expert cache; None: all that is left
    predictor_bytes: int = 0  # for forecasting the next layers' experts
    reader_bytes: int = 0  # what reads take besides the records they fetch
    draft_bytes: int = 0  # a model that drafts for this one
    has_grammars: bool = False  # answers follow grammars of the server
    held_bytes: int = 0  # what the process may come to take without this model, such as for another one

    def __post_init__(self) -> None:
        if self.num_texts < 1:
            raise RequestError(f"room for {self.num_texts} texts; give at least 1")


JUST_THE_MODEL = MemoryNeeds()


@dataclass(frozen=True)
class MemoryPlan:
    """A budget divided. ``items`` add up to at most the budget."""

    budget_bytes: int
    smallest_num_bytes: int
    items: tuple[MemoryItem, ...]
    expert_cache_bytes: int  # size of the expert cache's arena
    expert_num_bytes: int  # of all experts
    state_bytes: int  # keys and values of all texts together
    context: int
    kv_format: str
    chunk_size: int  # most tokens of one prompt in a step
    step_rows: int  # most tokens of all texts in a step
    num_answers: int  # most answers in a step
    explanation: str  # the budget and why it is what it is

    @property
    def is_resident(self) -> bool:
        """True when every expert fits, so that nothing is ever evicted."""
        return self.expert_cache_bytes >= self.expert_num_bytes

    @property
    def resident_share(self) -> float:
        """The part of all experts that fits, by bytes."""
        return min(1.0, self.expert_cache_bytes / self.expert_num_bytes)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "budget_bytes": self.budget_bytes,
            "smallest_num_bytes": self.smallest_num_bytes,
            "items": {item.key: item.num_bytes for item in self.items},
            "expert_cache_bytes": self.expert_cache_bytes,
            "expert_num_bytes": self.expert_num_bytes,
            "resident_share": round(self.resident_share, 4),
            "is_resident": self.is_resident,
            "context": self.context,
            "kv_format": self.kv_format,
            "chunk_size": self.chunk_size,
        }


def budget_note(memory: MemoryPlan, asked: str | int | None) -> str | None:
    """What to say of a budget: where the default one comes from, or that the one asked for is not free."""
    if asked is None:
        return f"memory budget {memory.explanation}; --memory sets another"
    warning = check_budget(memory.budget_bytes)
    return None if warning is None else f"warning: {warning}; other programs may have to give way"


def plan_memory(
    spec: ModelSpec,
    manifest: Manifest,
    budget_bytes: int | None = None,
    needs: MemoryNeeds = JUST_THE_MODEL,
) -> MemoryPlan:
    """Divide a budget (default: ``default_budget``); the expert cache gets what is left.

    Raises:
        BudgetError: it cannot work; the message and the error's field say which can.
        RequestError: the context is longer than the model was trained for, or the cache holds nothing.
    """
    context = checked_context(spec, needs.context)
    explanation = "" if budget_bytes is None else f"{format_size(budget_bytes)}, as asked for"
    if budget_bytes is None:
        budget_bytes, explanation = default_budget()
    fixed = _fixed_items(spec, manifest, context, needs)
    fixed_bytes = sum(item.num_bytes for item in fixed)
    num_answers = most_answers(needs.num_texts)
    floor = _one_layers_experts_bytes(spec, manifest)
    smallest = _whole_mib(fixed_bytes + working_bytes(spec, CHUNK_SIZES[-1], context, num_answers) + floor)
    if budget_bytes < smallest:
        raise BudgetError(
            f"{format_size(budget_bytes)} cannot run this store with a context of {context} tokens; the"
            f" smallest budget that works is {ceil_size(smallest)}",
            smallest_num_bytes=smallest,
        )
    rest = budget_bytes - fixed_bytes
    rows = _rows_of_step(spec, (rest - floor) * CHUNK_SHARE, needs.num_texts)
    working = working_bytes(spec, rows, context, num_answers)
    sizes = [entry.num_bytes for entry in manifest.experts.values()]
    arena = _arena_bytes(rest - working, needs.cache_bytes, sizes)
    share = f"{arena / sum(sizes):.0%} of {format_size(sum(sizes))}"
    items = (
        *fixed,
        MemoryItem("working", f"working memory, {rows} tokens at a time", working),
        MemoryItem("expert_cache", f"expert cache, {share}", arena),
    )
    return MemoryPlan(
        budget_bytes=budget_bytes,
        smallest_num_bytes=smallest,
        items=items,
        expert_cache_bytes=arena,
        expert_num_bytes=sum(sizes),
        state_bytes=needs.num_texts * spec.state_num_bytes(context, needs.kv_format),
        context=context,
        kv_format=needs.kv_format,
        chunk_size=min(rows, CHUNK_SIZES[0]),
        step_rows=rows,
        num_answers=num_answers,
        explanation=explanation,
    )


def _one_layers_experts_bytes(spec: ModelSpec, manifest: Manifest) -> int:
    """One token's experts of a layer: with less, a layer would read the same expert twice."""
    largest = max(entry.num_bytes for entry in manifest.experts.values())
    in_pages = -(-largest // mmap.PAGESIZE) * mmap.PAGESIZE
    return spec.most_chosen * in_pages


def _whole_mib(num_bytes: int) -> int:
    """Rounded up, so that a size works as it stands in a message."""
    return -(-num_bytes // MIB) * MIB


def _rows_of_step(spec: ModelSpec, most_bytes: float, num_texts: int) -> int:
    """Tokens that pass through a layer together, for whose working memory there are so many bytes."""
    sizes = CHUNK_SIZES if num_texts == 1 else STEP_SIZES
    num_answers = most_answers(num_texts)
    fitting = (rows for rows in sizes if working_bytes(spec, rows, num_answers=num_answers) <= most_bytes)
    return next(fitting, CHUNK_SIZES[-1])


def resident_budget(spec: ModelSpec, manifest: Manifest, needs: MemoryNeeds = JUST_THE_MODEL) -> int:
    """The smallest budget that keeps every expert in memory, in whole MiB."""
    context = checked_context(spec, needs.context)
    fixed = _fixed_items(spec, manifest, context, needs)
    experts = sum(entry.num_bytes for entry in manifest.experts.values())
    working = working_bytes(spec, CHUNK_SIZES[-1], context, most_answers(needs.num_texts))
    return _whole_mib(sum(item.num_bytes for item in fixed) + experts + working)


def most_answers(num_texts: int) -> int:
    """Most answers written together where there is room for so many whole contexts.

    Logits of each are there twice: those that are drawn from, and those that the next step makes.
    """
    return HEAD_ROWS // 2 if num_texts == 1 else MOST_ANSWERS


def working_bytes(spec: ModelSpec, chunk: int, context: int = 0, num_answers: int = HEAD_ROWS // 2) -> int:
    """Most that the forward pass of ``chunk`` tokens takes at one time, and the logits of a few.

    Mixers and networks run one after the other, and compiled code says what each takes (a test compares that
    with what the process comes to take). A row sees up to ``context`` tokens, and an encoder takes as many at
    once.
    """
    rows = max(chunk, context) if spec.has_encoder else chunk
    parts = (layer.working_bytes(rows, context, spec.width) for layer in spec.layers)
    # Logits as floats, and three arrays of their size in double precision while sampling or scoring.
    logits = max(HEAD_ROWS, 2 * num_answers) * spec.vocab_size * 4 + 3 * spec.vocab_size * 8
    return _HELD_ROWS * spec.width * 4 * rows + max(parts) + logits


def _arena_bytes(rest_bytes: int, cache_bytes: int | None, sizes: Sequence[int]) -> int:
    """The expert cache: in whole records where all are of one size, so that nothing is left over."""
    if cache_bytes is not None and cache_bytes < max(sizes):
        raise RequestError(
            f"an expert cache of {format_size(cache_bytes)} holds no expert; one takes"
            f" {format_size(max(sizes))}"
        )
    num_bytes = min(rest_bytes, sum(sizes), rest_bytes if cache_bytes is None else cache_bytes)
    grain = math.gcd(*sizes)
    return num_bytes // grain * grain


def checked_context(spec: ModelSpec, context: int | None) -> int:
    """The context that is meant. Raises RequestError: it is longer than the model was trained for."""
    if context is None:
        return min(DEFAULT_PROMPT if spec.has_encoder else DEFAULT_CONTEXT, spec.max_context)
    if not 1 <= context <= spec.max_context:
        raise RequestError(f"a context of {context} tokens; this model takes 1 to {spec.max_context}")
    return context


def _fixed_items(spec: ModelSpec, manifest: Manifest, context: int, needs: MemoryNeeds) -> list[MemoryItem]:
    """All but working memory and the expert cache."""
    tokenizer = TOKENIZER_FACTOR * manifest.files.get("tokenizer.json", 0)
    process = max(PROCESS_BYTES + tokenizer, resident_bytes(), needs.held_bytes)
    dense = sum(entry.num_bytes for entry in manifest.dense.values())
    tokens = f"{context} tokens of prompt and of answer" if spec.has_encoder else f"{context} tokens"
    if needs.num_texts > 1:
        tokens = f"{needs.num_texts} texts of {tokens}"
    kv_bytes = needs.num_texts * spec.state_num_bytes(context, needs.kv_format)
    # Floats for every head and distance in both directions, of encoder and decoder.
    bias_bytes = 0 if spec.position_bias is None else 2 * 4 * spec.num_bias_heads * 2 * context
    grammar_bytes = GRAMMAR_BYTES * spec.vocab_size if needs.has_grammars else 0
    where_needed = (
        MemoryItem("position_biases", "position biases", bias_bytes),
        MemoryItem("predictor", "predictor", needs.predictor_bytes),
        MemoryItem("reader", "reads under way", needs.reader_bytes),
        MemoryItem("draft_model", "draft model, its texts and working memory", needs.draft_bytes),
        MemoryItem("grammars", "vocabulary for grammars", grammar_bytes),
    )
    return [
        MemoryItem("process", "process and tokenizer", process),
        MemoryItem("dense_weights", "dense weights", dense),
        MemoryItem("kv_cache", f"KV cache, {tokens} in {needs.kv_format}", kv_bytes),
        MemoryItem("allocator_margin", "allocator margin", ALLOCATOR_MARGIN_BYTES),
        *(item for item in where_needed if item.num_bytes),
    ]
