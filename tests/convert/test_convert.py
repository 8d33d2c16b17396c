"""Conversion: atomic, resumable after SIGKILL anywhere with the same bytes, refused when it cannot work."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from edgemoe.convert import convert, estimate
from edgemoe.errors import CheckpointError, ConversionError, MissingTensorError, UnsupportedModelError
from edgemoe.quant import BitPlan, ExpertFormats

PLAN = BitPlan.uniform("q4", "q8")


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# A conversion in its own process that stops dead after a number of tensors.
KILLED = """
import os, signal, sys
from edgemoe.convert import convert
from edgemoe.quant import BitPlan
from edgemoe.store import writer
writer._SYNC_BYTES = 20_000
count = 0
def progress(done, total):
    global count
    count += 1
    if count == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
convert(sys.argv[1], sys.argv[2], BitPlan.uniform("q4", "q8"), progress=progress)
"""


@pytest.mark.parametrize("after", [1, 2, 20, 45, 53])
def test_resumes_after_sigkill_with_the_same_bytes(tiny_checkpoint, tiny_store, tmp_path, after):
    out = tmp_path / "out"
    process = subprocess.run([sys.executable, "-c", KILLED, tiny_checkpoint, out, str(after)], check=False)
    assert process.returncode == -signal.SIGKILL
    assert not out.exists()
    report = convert(tiny_checkpoint, out, PLAN)
    assert files_of(out) == files_of(tiny_store)
    assert report.num_resumed_bytes > 0 or after < 20
    assert not (tmp_path / "out.partial").exists()


def test_a_torn_journal_line_is_ignored(tiny_checkpoint, tiny_store, tmp_path):
    out = tmp_path / "out"
    subprocess.run([sys.executable, "-c", KILLED, tiny_checkpoint, out, "40"], check=False)
    journal = tmp_path / "out.partial" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    convert(tiny_checkpoint, out, PLAN)
    assert files_of(out) == files_of(tiny_store)


def test_another_plan_starts_afresh(tiny_checkpoint, tmp_path):
    out = tmp_path / "out"
    subprocess.run([sys.executable, "-c", KILLED, tiny_checkpoint, out, "40"], check=False)
    report = convert(tiny_checkpoint, out, BitPlan.uniform("q2", "q8"))
    assert report.num_resumed_bytes == 0
    convert(tiny_checkpoint, tmp_path / "fresh", BitPlan.uniform("q2", "q8"))
    assert files_of(out) == files_of(tmp_path / "fresh")


def test_existing_output_is_refused_unless_told(tiny_checkpoint, tmp_path):
    out = tmp_path / "out"
    convert(tiny_checkpoint, out, PLAN)
    with pytest.raises(ConversionError, match="already exists"):
        convert(tiny_checkpoint, out, PLAN)
    convert(tiny_checkpoint, out, BitPlan.uniform("q2", "q8"), overwrite=True)
    manifest = json.loads((out / "edgemoe.json").read_text())
    assert manifest["experts"]["0.0"]["formats"] == ["q2", "q2", "q2"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_conversions_of_one_output_are_refused(tiny_checkpoint, tmp_path):
    out = tmp_path / "out"
    program = KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", "import time; time.sleep(30)")
    process = subprocess.Popen([sys.executable, "-c", program, tiny_checkpoint, out, "5"])
    try:
        while not (tmp_path / "out.partial" / "journal.jsonl").exists():
            time.sleep(0.02)
        with pytest.raises(ConversionError, match="another process is writing it"):
            convert(tiny_checkpoint, out, PLAN)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 33 MiB: a conversion's margin and hardly more."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=33m", "none", folder], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_refused_before_it_starts(tiny_checkpoint, small_disk):
    (small_disk / "filler").write_bytes(bytes(4 * 1024 * 1024))
    with pytest.raises(ConversionError, match=r"needs .* more, .* are free; free \d+KiB or choose"):
        convert(tiny_checkpoint, small_disk / "out", PLAN)


def test_a_disk_that_fills_up_keeps_what_was_done(tiny_checkpoint, tiny_store, small_disk):
    def fill(done, total):
        if done > total // 3 and not (small_disk / "filler").exists():
            filler = os.open(small_disk / "filler", os.O_CREAT | os.O_WRONLY)
            with contextlib.suppress(OSError):
                while os.write(filler, bytes(4096)):
                    pass
            os.close(filler)

    with pytest.raises(ConversionError, match="disk full; free some space and repeat the command"):
        convert(tiny_checkpoint, small_disk / "out", PLAN, progress=fill)
    assert not (small_disk / "out").exists()
    (small_disk / "filler").unlink()
    convert(tiny_checkpoint, small_disk / "out", PLAN)
    assert files_of(small_disk / "out") == files_of(tiny_store)


def test_the_estimate_is_what_is_written(tiny_checkpoint, tiny_store):
    guess = estimate(tiny_checkpoint, PLAN)
    written = sum(path.stat().st_size for path in tiny_store.glob("*.safetensors"))
    assert guess.num_bytes == written


def edit_config(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.update(changes)
    path.write_text(json.dumps(config))


@pytest.fixture
def broken(tiny_checkpoint, tmp_path):
    return shutil.copytree(tiny_checkpoint, tmp_path / "broken")


def test_truncated_shard(broken, tmp_path):
    path = broken / "model.safetensors"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1000)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cut off, .* fetch it again"):
        convert(broken, tmp_path / "out", PLAN)
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize(
    "garbage", [b"", b"\xff" * 64, b"\x10\0\0\0\0\0\0\0{not json at all}", b"<html>" * 9]
)
def test_garbage_instead_of_a_shard(broken, tmp_path, garbage):
    (broken / "model.safetensors").write_bytes(garbage)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        convert(broken, tmp_path / "out", PLAN)


def test_missing_shard_of_an_index(broken, tmp_path):
    (broken / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"x": "gone.safetensors"}})
    )
    (broken / "model.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"gone\.safetensors: not found, though model.safetensors.index"
    ):
        convert(broken, tmp_path / "out", PLAN)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2' is not supported; supported: "),
        ({"attention_sinks": 4}, "not known to have attention_sinks"),
        ({"hidden_act": "quick_gelu"}, "hidden_act = 'quick_gelu' is not supported"),
        ({"rope_parameters": {"rope_type": "spiral", "rope_theta": 1.0}}, "rope type 'spiral'"),
        (
            {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1.0}},
            "short_factor None is not a list",
        ),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1.0}}, "rope type linear needs factor"),
        ({"rope_parameters": {"rope_type": "default", "surprise": 3}}, "rope type default has no surprise"),
        ({"num_experts_per_tok": 99}, "more experts per token than experts"),
        ({"num_hidden_layers": "three"}, "num_hidden_layers is 'three', not a positive integer"),
    ],
)
def test_what_is_not_supported_is_named(broken, tmp_path, changes, message):
    edit_config(broken, **changes)
    with pytest.raises(UnsupportedModelError, match=message):
        convert(broken, tmp_path / "out", PLAN)


def test_tensors_and_configuration_must_agree(broken, tmp_path):
    edit_config(broken, num_hidden_layers=4)
    with pytest.raises(MissingTensorError, match=r"model\.layers\.3\."):
        convert(broken, tmp_path / "out", PLAN)
    edit_config(broken, num_hidden_layers=2)
    with pytest.raises(CheckpointError, match=r"tensor model\.layers\.2\..* belongs to nothing"):
        convert(broken, tmp_path / "out", PLAN)
    edit_config(broken, num_hidden_layers=3, moe_intermediate_size=64)
    with pytest.raises(CheckpointError, match=r"has shape .* config\.json implies"):
        convert(broken, tmp_path / "out", PLAN)


def test_weights_that_are_not_finite_are_refused(broken, tmp_path):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(broken / "model.safetensors")
    tensors["model.layers.0.mlp.experts.1.up_proj.weight"][3, 3] = float("nan")
    save_file(tensors, broken / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"experts\.1\.up_proj\.weight holds values that are not finite"
    ):
        convert(broken, tmp_path / "out", PLAN)


def test_a_plan_for_another_model_is_refused(tiny_checkpoint, tmp_path):
    plan = BitPlan(ExpertFormats.uniform("q4"), "q8", {(0, 99): ExpertFormats.uniform("q2")})
    with pytest.raises(CheckpointError, match="layer 0 expert 99, which is not in the model"):
        convert(tiny_checkpoint, tmp_path / "out", plan)


def test_a_folder_that_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="not found; give"):
        convert(tmp_path / "nowhere", tmp_path / "out", PLAN)
    with pytest.raises(CheckpointError, match=r"config\.json: not found"):
        convert(tmp_path, tmp_path / "out", PLAN)
