"""The store as a format: standard tools open it, places are aligned, records are what was packed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from edgemoe import native
from edgemoe.checkpoint import open_checkpoint
from edgemoe.models import find_sources, read_spec
from edgemoe.quant import ExpertFormats
from edgemoe.safetensors_header import read_header
from edgemoe.store import expert_matrices, open_store, plan_layout
from edgemoe.store.format import RECORD_ALIGNMENT


def test_the_safetensors_package_opens_every_file(tiny_store):
    store = open_store(tiny_store)
    with safe_open(tiny_store / "experts-00000.safetensors", framework="np") as file:
        assert len(file.keys()) == len(store.manifest.experts)
        record = file.get_tensor("layers.1.experts.3")
    entry = store.manifest.experts[1, 3]
    assert record.dtype == np.uint8
    assert len(record) == entry.num_bytes
    store.verify_expert((1, 3), record)
    with safe_open(tiny_store / "dense.safetensors", framework="np") as file:
        assert set(file.keys()) == set(store.manifest.dense)


def test_records_are_aligned_and_hold_the_packed_matrices(tiny_store, tiny_checkpoint):
    store = open_store(tiny_store)
    source = open_checkpoint(tiny_checkpoint)
    spec = read_spec(source.config())
    sources = find_sources(spec, {name: info.shape for name, info in source.tensors().items()})
    with (tiny_store / "experts-00000.safetensors").open("rb") as file:
        for (layer, expert), entry in store.manifest.experts.items():
            assert entry.offset % RECORD_ALIGNMENT == entry.num_bytes % RECORD_ALIGNMENT == 0
            file.seek(entry.offset)
            record = np.frombuffer(file.read(entry.num_bytes), np.uint8)
            matrices = expert_matrices(record, entry.formats, spec.width, spec.moe(layer).expert.width)
            for name, matrix in zip(("gate", "up", "down"), matrices, strict=True):
                weights = source.read(sources.experts[layer, expert, name])
                assert np.array_equal(matrix.packed, native.quantize(weights, "q4"))
    source.close()


def test_dense_tensors_come_back(tiny_store, tiny_checkpoint):
    store = open_store(tiny_store)
    source = open_checkpoint(tiny_checkpoint)
    stored = store.read_dense()
    norm = stored["norm.weight"].view(np.float32)[:64]
    from edgemoe.checkpoint import SourceRef

    assert np.array_equal(norm, source.read(SourceRef("model.norm.weight")))
    for kind in ("direct", "buffered"):
        again = store.read_dense(kind)
        assert all(np.array_equal(again[name], data) for name, data in stored.items())
    source.close()


def test_a_whole_store_verifies(tiny_store):
    calls = []
    assert list(open_store(tiny_store).verify(lambda done, total: calls.append((done, total)))) == []
    assert calls[-1][0] == calls[-1][1]


@given(
    st.lists(st.tuples(st.sampled_from(["q2", "q4", "f32"]), st.integers(1, 4)), min_size=1, max_size=12),
    st.integers(30_000, 200_000),
)
@settings(max_examples=50, deadline=None)
def test_layouts_are_aligned_without_overlap_and_split_into_shards(experts, max_shard_bytes):
    described = [((0, i), ExpertFormats.uniform(f), 32 * w) for i, (f, w) in enumerate(experts)]
    layout = plan_layout({"norm.weight": ("f32", (64,))}, described, 64, max_shard_bytes)
    ends: dict[str, int] = {file: len(header) for file, header in layout.headers.items()}
    for place in layout.experts.values():
        assert place.offset == ends[place.file]
        assert place.offset % RECORD_ALIGNMENT == 0
        ends[place.file] += place.num_bytes
    # A shard is larger than the limit only when it holds a single expert.
    for file, end in ends.items():
        num_experts = sum(place.file == file for place in layout.experts.values())
        assert num_experts <= 1 or end - len(layout.headers[file]) <= max_shard_bytes


def test_a_header_reads_back(tiny_store):
    header = read_header(tiny_store / "experts-00000.safetensors")
    manifest = json.loads((tiny_store / "edgemoe.json").read_text())
    assert header.data_start % RECORD_ALIGNMENT == 0
    assert header.tensors["layers.0.experts.0"].offset == manifest["experts"]["0.0"]["offset"]


def test_side_files_are_kept(tiny_store):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tiny_store / name).is_file()


@pytest.mark.parametrize("bits", ["q2", "f16"])
def test_mixed_plans_are_stored_per_expert(tiny_checkpoint, tmp_path, bits):
    from edgemoe.convert import convert
    from edgemoe.quant import BitPlan

    special = ExpertFormats("q2", "q3", bits)
    plan = BitPlan(ExpertFormats.uniform("q4"), "q6", {(1, 2): special}, {"method": "by hand"})
    convert(tiny_checkpoint, tmp_path / "mixed", plan)
    store = open_store(tmp_path / "mixed")
    assert store.manifest.experts[1, 2].formats == special
    assert store.manifest.experts[1, 3].formats == ExpertFormats.uniform("q4")
    assert store.manifest.plan == {"method": "by hand"}
    assert list(store.verify()) == []
