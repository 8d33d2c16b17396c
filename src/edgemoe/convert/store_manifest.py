"""The manifest of a store whose tensors have all been written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version

from edgemoe.quant import BitPlan, ExpertFormats
from edgemoe.store import (
    MTP_PREFIX,
    DenseEntry,
    ExpertEntry,
    ExpertKey,
    Manifest,
    MtpEntries,
    Place,
    StoreLayout,
    StoreWriter,
    checksum,
    expert_name,
)


def build_manifest(
    layout: StoreLayout,
    dense: Mapping[str, tuple[str, tuple[int, ...]]],
    formats: Mapping[ExpertKey, ExpertFormats],
    plan: BitPlan,
    writer: StoreWriter,
    side_files: Mapping[str, bytes],
) -> Manifest:
    """The manifest of a store that a writer has written; ``dense`` has format and shape by name."""
    files = {name: len(data) for name, data in side_files.items()}
    for file, header in layout.headers.items():
        files[file] = len(header)
    for place in (*layout.dense.values(), *layout.experts.values()):
        files[place.file] += place.num_bytes
    dense_entries = {
        name: DenseEntry(format, shape, *_place_fields(layout.dense[name]), writer.checksums[name])
        for name, (format, shape) in dense.items()
    }
    experts = {
        key: ExpertEntry(formats[key], *_place_fields(place), writer.checksums[expert_name(key)])
        for key, place in layout.experts.items()
    }
    return Manifest(
        generator=f"edgemoe {version('edgemoe')}",
        plan=dict(plan.origin),
        files=files,
        checksums={name: checksum(data) for name, data in side_files.items()},
        dense=dense_entries,
        experts=experts,
    )


def split_mtp(manifest: Manifest, layer: int) -> Manifest:
    """The manifest with what is of the layer for further tokens, numbered ``layer``, apart."""
    dense = {name: e for name, e in manifest.dense.items() if name.startswith(MTP_PREFIX)}
    experts = {key: e for key, e in manifest.experts.items() if key[0] == layer}
    return replace(
        manifest,
        dense={name: e for name, e in manifest.dense.items() if name not in dense},
        experts={key: e for key, e in manifest.experts.items() if key not in experts},
        mtp=MtpEntries(dense, experts),
    )


def _place_fields(place: Place) -> tuple[str, int, int]:
    return place.file, place.offset, place.num_bytes
