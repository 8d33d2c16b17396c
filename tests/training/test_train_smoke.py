"""The training script: a stated loss in a few steps, and stop + resume equal to an uninterrupted run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

SCRIPT = Path(__file__).parents[2] / "training" / "train.py"
# A uniform guess over 300 tokens costs log(300) = 5.70; one repeated sentence is soon learnt.
STATED_LOSS = 4.0


def run(data: Path, out: Path, *extra: str) -> None:
    command = [sys.executable, str(SCRIPT), "--data", str(data), "--out", str(out), "--steps", "10",
               "--batch", "2", "--length", "32", "--vocab", "300", *extra]
    subprocess.run(command, check=True, timeout=60, capture_output=True)


def weights(out: Path) -> dict[str, object]:
    return torch.load(out / "state.pt", weights_only=True)["model"]


def test_reaches_the_stated_loss_and_resumes_exactly(tmp_path: Path) -> None:
    (tmp_path / "tinystories.train.txt").write_text("The cat sat on the mat. \n<|endoftext|>\n" * 200)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(tmp_path, whole)
    run(tmp_path, parts, "--stop-after", "4")
    run(tmp_path, parts)
    logged = (whole / "log.jsonl").read_text()
    assert float(logged.split('"loss": ')[1].split(",")[0]) < STATED_LOSS
    resumed = weights(parts)
    for name, value in weights(whole).items():
        assert torch.equal(value, resumed[name]), name
