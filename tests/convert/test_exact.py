"""Checkpoints in blocks become stores without a change of any weight."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("gguf")
from gguf import GGMLQuantizationType as Type
from helpers.exact_blocks import EXACT
from helpers.gguf_files import write_gguf
from helpers.resident import load_resident
from helpers.tiny_models import VOCAB_SIZE, write_checkpoint

import edgemoe
from edgemoe import native
from edgemoe.checkpoint import open_checkpoint
from edgemoe.convert import convert, plan_as_stored
from edgemoe.errors import CheckpointError
from edgemoe.models import find_sources, read_spec
from edgemoe.quant import BitPlan, ExpertFormats
from edgemoe.store import expert_matrices, open_store

TOKENS = np.random.default_rng(3).integers(0, VOCAB_SIZE, 16).astype(np.int32)
# Rows of 256 columns, as types with that many in a block need.
WIDE = {"hidden_size": 256, "moe_intermediate_size": 256, "num_hidden_layers": 1, "head_dim": 64}


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("wide"), "qwen3", **WIDE)


def stored_matrices(path):
    """Every matrix of a store as floats: by name, or by layer, expert and projection."""
    store = open_store(path)
    spec = read_spec(store.config)
    data = store.read_dense()
    for name, entry in store.manifest.dense.items():
        if len(entry.shape) == 2:
            packed = data[name][: native.packed_num_bytes(entry.format, *entry.shape)]
            yield name, native.dequantize(packed, entry.format, *entry.shape)
    for (layer, expert), entry in store.manifest.experts.items():
        with (store.path / entry.file).open("rb") as file:
            file.seek(entry.offset)
            record = np.frombuffer(file.read(entry.num_bytes), np.uint8)
        inner = spec.moe(layer).expert.width
        parts = expert_matrices(record, entry.formats, spec.width, inner)
        for projection, m in zip(("gate", "up", "down"), parts, strict=True):
            if m is not None:
                values = native.dequantize(m.packed, m.format, m.num_rows, m.num_cols)
                yield (layer, expert, projection), values


def assert_same_weights(source_path, store_path):
    source = open_checkpoint(source_path)
    sources = find_sources(
        read_spec(source.config()), {name: info.shape for name, info in source.tensors().items()}
    )
    for name, values in stored_matrices(store_path):
        ref = sources.dense[name] if isinstance(name, str) else sources.experts[name]
        assert np.array_equal(values, source.read(ref)), name
    source.close()


@pytest.mark.parametrize("block_type", [t.block_type for t in EXACT])
def test_every_weight_of_a_gguf_file_is_in_the_store(tmp_path, wide, block_type):
    path = write_gguf(wide, tmp_path / "model.gguf", lambda name: Type[block_type])
    report = convert(path, tmp_path / "store", plan_as_stored(path))
    assert_same_weights(path, tmp_path / "store")
    assert set(report.rounding.values()) == {0.0}
    assert sum(n for change, n in report.num_matrices.items() if change.startswith(block_type)) > 8


def test_mixed_types_keep_each_its_own_and_answer_alike(tmp_path, wide):
    """The mix of Q4_K_M: more bits for values and half of the down projections, and for the head."""

    def type_of(name):
        is_important = "attn_v" in name or "ffn_down" in name or name == "output.weight"
        return Type.Q6_K if is_important else Type.Q4_K

    path = write_gguf(wide, tmp_path / "model.gguf", type_of)
    plan = plan_as_stored(path)
    assert plan.default == ExpertFormats("q4_k", "q4_k", "q6_k")
    convert(path, tmp_path / "store", plan)
    assert_same_weights(path, tmp_path / "store")
    source = open_checkpoint(path)
    spec, decoder = load_resident(source)
    expected = decoder.head(decoder.forward(TOKENS, spec.new_state(len(TOKENS), "f32")))
    source.close()
    with edgemoe.load(tmp_path / "store", "4GiB", context=32, kv_format="f32") as model:
        logits = model.logits(TOKENS.tolist())
    errors = np.linalg.norm(logits - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert np.median(errors) < 0.03


def test_rows_that_a_writer_has_reordered_are_put_back(tmp_path):
    folder = write_checkpoint(tmp_path / "hf", "mixtral")
    path = write_gguf(folder, tmp_path / "model.gguf", lambda name: Type.Q4_0)
    convert(path, tmp_path / "store", plan_as_stored(path))
    assert_same_weights(path, tmp_path / "store")


def test_a_width_may_still_be_asked_for(tmp_path, wide):
    path = write_gguf(wide, tmp_path / "model.gguf", lambda name: Type.Q6_K)
    report = convert(path, tmp_path / "store", BitPlan.uniform("q4", "q8"))
    assert 0.01 < report.rounding["Q6_K → q4"] < 0.2


def test_a_plan_with_blocks_that_are_not_there_is_refused(tmp_path, wide):
    path = write_gguf(wide, tmp_path / "model.gguf", lambda name: Type.Q6_K)
    with pytest.raises(CheckpointError, match="as q4_k, which holds Q4_K as it is; the tensor is Q6_K"):
        convert(path, tmp_path / "store", BitPlan.uniform("q4_k", "q8"))
    assert not (tmp_path / "store").exists()


def test_scales_that_are_not_finite_are_refused_with_the_tensor(tmp_path, wide):
    path = write_gguf(wide, tmp_path / "model.gguf", lambda name: Type.Q8_0)
    data = bytearray(path.read_bytes())
    from gguf import GGUFReader

    tensor = next(t for t in GGUFReader(path).tensors if t.name == "blk.0.ffn_up_exps.weight")
    data[tensor.data_offset : tensor.data_offset + 2] = b"\x00\x7c"
    path.write_bytes(data)
    with pytest.raises(
        CheckpointError, match=r"blk\.0\.ffn_up_exps\.weight: row 0 holds weights that are not"
    ):
        convert(path, tmp_path / "store", plan_as_stored(path))


def test_a_stopped_repacking_goes_on(tmp_path, wide):
    path = write_gguf(wide, tmp_path / "model.gguf", lambda name: Type.Q4_K)
    plan = plan_as_stored(path)

    class Stop(Exception):
        pass

    def stop(done, total):
        if done > total // 2:
            raise Stop

    with pytest.raises(Stop):
        convert(path, tmp_path / "store", plan, progress=stop)
    report = convert(path, tmp_path / "store", plan)
    assert report.num_resumed_bytes > 0
    assert_same_weights(path, tmp_path / "store")
