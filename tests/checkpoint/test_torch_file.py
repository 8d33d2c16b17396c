"""pytorch_model.bin without torch: what torch.save wrote is found, and nothing in it is run."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import zipfile

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from helpers.tiny_switch import build_switch, write_switch

from edgemoe.checkpoint import SourceRef, open_checkpoint
from edgemoe.errors import CheckpointError

TENSORS = {
    "matrix": torch.randn(5, 7),
    "half": torch.randn(3, 4).half(),
    "brain": torch.randn(4, 4).bfloat16(),
    "scalar": torch.tensor(2.5),
    "row": torch.randn(1, 6).T[:, :1].T,  # a stride that says nothing
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "x"}')
    return tmp_path


def read_all(folder):
    source = open_checkpoint(folder)
    try:
        return {name: source.read(SourceRef(name)) for name in source.tensors()}
    finally:
        source.close()


def test_tensors_are_those_that_were_saved(folder):
    tensors = {**TENSORS, "parameter": torch.nn.Parameter(torch.ones(2)), "part": TENSORS["matrix"][2:4]}
    torch.save(tensors, folder / "pytorch_model.bin")
    found = read_all(folder)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert np.array_equal(found[name], tensor.detach().float().numpy())
    source = open_checkpoint(folder)
    rows = source.read(SourceRef("matrix").slice_rows(1, 3))
    assert np.array_equal(rows, TENSORS["matrix"][1:3].numpy())
    assert source.tensors()["half"].num_bytes == 24
    source.close()


def test_a_state_dict_in_shards_is_the_same_checkpoint(tmp_path):
    safe = write_switch(tmp_path / "safe", "base")
    state = {name: tensor.clone() for name, tensor in build_switch("base").state_dict().items()}
    old = tmp_path / "old"
    old.mkdir()
    (old / "config.json").write_text((safe / "config.json").read_text())
    names = sorted(state)
    files = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, part in files.items():
        torch.save({name: state[name] for name in part}, old / file)
    weight_map = {name: file for file, part in files.items() for name in part}
    (old / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    ours, theirs = read_all(old), read_all(safe)
    assert theirs.keys() <= ours.keys()
    assert all(np.array_equal(ours[name], value) for name, value in theirs.items())


def test_safetensors_come_first(tmp_path):
    write_switch(tmp_path, "base")
    (tmp_path / "pytorch_model.bin").write_bytes(b"never looked at")
    assert "shared.weight" in read_all(tmp_path)


class _Runs:
    def __reduce__(self):
        return subprocess.run, (["touch", "/tmp/never"],)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"w": _Runs()}, r"asks for \w+\.run, which"),
        ({"w": torch.ones(2), "steps": 3}, "entry 'steps' is no tensor"),
        ([torch.ones(2)], "holds list, not tensors by name"),
        ({"w": torch.ones(4, 4).T}, "save a contiguous copy"),
        ({"w": torch.ones(4, 4).to_sparse()}, "asks for torch._utils._rebuild_sparse_tensor"),
        ({"w": torch.device("cpu")}, "asks for torch.device"),
    ],
)
def test_what_is_no_plain_tensor_is_refused(folder, content, message):
    torch.save(content, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(folder)


def test_integers_are_refused_when_read(folder):
    torch.save({"w": torch.arange(3)}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="type I64; only BF16, F16, F32 and F64"):
        read_all(folder)


def test_damaged_files_are_named(folder):
    path = folder / "pytorch_model.bin"
    path.write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"not a file that torch\.save has written"):
        open_checkpoint(folder)
    torch.save(TENSORS, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"not a file that torch\.save has written"):
        open_checkpoint(folder)
    torch.save(TENSORS, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match=r"not a file that torch\.save has written"):
        open_checkpoint(folder)


def rewritten(path, change):
    """The archive with some entries replaced, or left out where the replacement is None."""
    old, data = zipfile.ZipFile(path), io.BytesIO()
    with zipfile.ZipFile(data, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    old.close()
    path.write_bytes(data.getvalue())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name, data: None if name.endswith("data/0") else data, "there is no .*data/0"),
        (lambda name, data: data[:-4] if name.endswith("data/0") else data, "136 bytes, not 140"),
        (lambda name, data: b"big" if name.endswith("byteorder") else data, "another byte order"),
        (lambda name, data: data[:40] if name.endswith("data.pkl") else data, "cannot be read as a list"),
        (
            lambda name, data: pickle.dumps({1: 2}) if name.endswith("data.pkl") else data,
            "entry 1 is no tensor",
        ),
    ],
)
def test_archives_that_were_changed_are_refused(folder, change, message):
    path = folder / "pytorch_model.bin"
    torch.save(TENSORS, path)
    rewritten(path, change)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(folder)
