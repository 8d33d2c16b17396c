"""What a conversion would make: the size of the store, and the plan that keeps a checkpoint's own widths."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgemoe.checkpoint import CheckpointSource, SourceRef, open_checkpoint
from edgemoe.convert.conversion import Conversion
from edgemoe.convert.examine import examine
from edgemoe.convert.packing import holds_exactly
from edgemoe.quant import BitPlan, ExpertFormats, format_at_least
from edgemoe.store import StoreLayout

# Peak of a conversion beside a few experts: the process, and what is fetched ahead.
_PROCESS_BYTES = 160 << 20
# Square matrices (D, D) of f32 that rounding for a text may hold at once: grams, their factors, inputs.
_SQUARES = 8


@dataclass(frozen=True)
class StoreEstimate:
    """What a store will take, in bytes, and the memory that making it takes, about; ``notes`` as in
    ConversionReport.
    """

    dense_bytes: int
    expert_bytes: int
    num_bytes: int
    converting_bytes: int
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def estimate(
    source: str | Path, plan: BitPlan, *, keeps_mtp: bool = True, has_inputs: bool = False
) -> StoreEstimate:
    """What the store of a checkpoint will take, without writing anything. ``has_inputs``: its experts will be
    rounded for a text.

    Raises:
        CheckpointError: the checkpoint is not one we can run.
    """
    opened = open_checkpoint(source)
    try:
        conversion = Conversion(opened, plan, keeps_mtp=keeps_mtp)
    finally:
        opened.close()
    layout = conversion.layout
    dense = sum(place.num_bytes for place in layout.dense.values())
    experts = sum(place.num_bytes for place in layout.experts.values())
    needed = converting_bytes(layout) + (_SQUARES * 4 * conversion.spec.width**2 if has_inputs else 0)
    return StoreEstimate(dense, experts, layout.num_bytes, needed, conversion.notes)


def converting_bytes(layout: StoreLayout) -> int:
    """Memory that a conversion takes, about: that of a few experts."""
    return _PROCESS_BYTES + 3 * max(place.num_bytes for place in layout.experts.values())


def plan_as_stored(source: CheckpointSource | str | Path, otherwise: BitPlan | None = None) -> BitPlan:
    """The plan that keeps every matrix as it is in the checkpoint where a format holds its blocks value for
    value, else as ``otherwise`` says, or without that at the width it has or the next wider one.

    Raises:
        CheckpointError: the checkpoint is not one we can run.
    """
    if isinstance(source, str | Path):
        opened = open_checkpoint(source)
        try:
            examined = examine(opened)
        finally:
            opened.close()
    else:
        examined = examine(source)
    spec, infos, sources = examined.spec, examined.stored, examined.sources

    def format_of(ref: SourceRef, other: str | None) -> str:
        info = infos[ref.name]
        if info.exact_format is not None and holds_exactly(info.exact_format, ref, info):
            return info.exact_format
        return other or format_at_least(info.bits_per_weight, info.dtype)

    def formats_of(layer: int, expert: int) -> ExpertFormats:
        # What a plan says of a gate is not looked at where there is none.
        gate = "gate" if spec.moe(layer).expert.is_gated else "up"
        others: tuple[str | None, ...] = (None, None, None)
        if otherwise is not None:
            usual = otherwise.formats_of(layer, expert)
            others = (usual.gate, usual.up, usual.down)
        refs = (sources.experts[layer, expert, p] for p in (gate, "up", "down"))
        return ExpertFormats(*map(format_of, refs, others))

    experts = {key: formats_of(*key) for key in spec.experts()}
    default = Counter(experts.values()).most_common(1)[0][0]
    dense = {
        t.name: format_of(sources.dense[t.name], None if otherwise is None else otherwise.dense)
        for t in spec.dense_tensors()
        if t.kind == "matrix" and len(t.shape) > 1
    }
    common = Counter(dense.values()).most_common(1)[0][0]
    return BitPlan(
        default,
        common,
        {key: formats for key, formats in experts.items() if formats != default},
        {"kind": "as stored"},
        {name: format for name, format in dense.items() if format != common},
    )
