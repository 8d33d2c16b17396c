"""One contract for every checkpoint source, and the forms in which folders come."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgemoe.checkpoint import MemoryCheckpoint, SourceRef, open_checkpoint
from edgemoe.errors import CheckpointError, MissingTensorError

torch = pytest.importorskip("torch")
from safetensors.torch import save_file

WEIGHTS = np.random.default_rng(0).standard_normal((4, 6, 8)).astype(np.float32)
VECTOR = np.arange(5, dtype=np.float32)


@pytest.fixture(params=["memory", "folder"])
def source(request, tmp_path):
    if request.param == "memory":
        yield MemoryCheckpoint({"model_type": "x"}, {"stack": WEIGHTS, "vector": VECTOR})
        return
    (tmp_path / "config.json").write_text('{"model_type": "x"}')
    tensors = {"stack": torch.from_numpy(WEIGHTS), "vector": torch.from_numpy(VECTOR)}
    save_file(tensors, tmp_path / "model.safetensors")
    opened = open_checkpoint(tmp_path)
    yield opened
    opened.close()


def test_slices_are_what_numpy_would_give(source):
    assert source.config() == {"model_type": "x"}
    assert source.tensors()["stack"].shape == (4, 6, 8)
    assert source.tensors()["stack"].num_bytes == WEIGHTS.nbytes
    assert np.array_equal(source.read(SourceRef("stack")), WEIGHTS)
    assert np.array_equal(source.read(SourceRef("stack", 2)), WEIGHTS[2])
    assert np.array_equal(source.read(SourceRef("stack", 3, (1, 5))), WEIGHTS[3, 1:5])
    assert np.array_equal(source.read(SourceRef("stack", 3, (1, 5)).slice_rows(1, 3)), WEIGHTS[3, 2:4])
    assert np.array_equal(source.read(SourceRef("vector")), VECTOR)


def test_a_tensor_that_is_not_there_is_named(source):
    with pytest.raises(MissingTensorError, match="there is no tensor nothing"):
        source.read(SourceRef("nothing"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_sixteen_bit_floats_become_exactly_what_they_are(tmp_path, dtype):
    (tmp_path / "config.json").write_text("{}")
    tensor = torch.from_numpy(WEIGHTS).to(getattr(torch, dtype))
    save_file({"t": tensor}, tmp_path / "model.safetensors")
    source = open_checkpoint(tmp_path)
    assert np.array_equal(source.read(SourceRef("t")), tensor.float().numpy())
    source.close()


def test_integers_are_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    save_file({"t": torch.arange(3)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="tensor t has type I64; only BF16, F16, F32 and F64"):
        open_checkpoint(tmp_path).read(SourceRef("t"))


def test_sharded_folders_give_the_same_tensors(tmp_path, tiny_checkpoint):
    from helpers.tiny_models import build_model

    build_model("qwen3").save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    whole, sharded = open_checkpoint(tiny_checkpoint), open_checkpoint(tmp_path)
    assert whole.tensors() == sharded.tensors()
    for name in whole.tensors():
        assert np.array_equal(whole.read(SourceRef(name)), sharded.read(SourceRef(name)))
    whole.close()
    sharded.close()


def test_an_index_without_a_map_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}}))
    with pytest.raises(CheckpointError, match="has no weight_map"):
        open_checkpoint(tmp_path)


def test_other_weight_files_are_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "flax_model.msgpack").write_bytes(b"x")
    with pytest.raises(
        CheckpointError, match=r"no model\.safetensors; flax_model.msgpack is weights of Flax"
    ):
        open_checkpoint(tmp_path)
