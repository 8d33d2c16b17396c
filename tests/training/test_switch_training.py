"""The script that trains a small Switch model, in its smallest form, and what its tasks are made of."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgemoe.convert import convert
from edgemoe.quant import BitPlan

FOLDER = Path(__file__).parents[2] / "training"
# A model that learns nothing stays near log(544) = 6.3 nats.
LOSS_TO_REACH = 4.5


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    story = "Once upon a time Lily went to the river. She saw a little cat and was happy.\n"
    (folder / "tinystories.train.txt").write_text("<|endoftext|>\n".join([story] * 500))
    (folder / "fairytaleqa").mkdir()
    row = {"story": "x", "passage": story, "question": "Who went to the river?", "answer": "Lily"}
    (folder / "fairytaleqa/train.jsonl").write_text((json.dumps(row) + "\n") * 20)
    return folder


def train(data, out, *more):
    options = ["--size", "smoke", "--vocab", 444, "--batch", 8, "--length", 48, "--steps", 60, "--lr", 0.01]
    command = [sys.executable, FOLDER / "train_switch.py", "--data", data, "--out", out, *options, *more]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_the_loss_falls_a_run_resumes_and_the_model_runs_here(data, tmp_path):
    import edgemoe

    train(data, tmp_path, "--stop-after", 30)
    log = train(data, tmp_path)
    assert [row["step"] for row in log] == [10, 20, 30, 40, 50, 60]
    assert log[-1]["loss"] < LOSS_TO_REACH
    convert(tmp_path / "model", tmp_path / "store", BitPlan.uniform("q8", "q8"))
    with edgemoe.load(tmp_path / "store", "4GiB", context=64) as model:
        ids = model.tokenizer.encode("Lily <extra_id_0> river")
        assert ids[-1] == 2, "every prompt ends with the end mark"
        assert model.tokenizer.decode(ids) == "Lily <extra_id_0> river"
        assert model.generate("continue: Once upon a time", max_tokens=4).token_ids


@pytest.fixture
def tasks(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("tasks")


@pytest.mark.parametrize("length", [8, 60, 512])
def test_spans_left_out_can_be_put_back(tasks, length):
    window = np.arange(length)
    prompt, answer = tasks.leave_out(window, 1000, np.random.default_rng(length))
    spans, restored = {}, []
    for token in answer:
        if token >= 1000:
            spans[token] = []
        else:
            spans[max(spans)].append(token)
    for token in prompt:
        restored += spans[token] if token >= 1000 else [token]
    assert restored == window.tolist()
    assert list(spans) == list(range(1000, 1000 + len(spans)))
    assert sum(map(len, spans.values())) == max(1, round(0.15 * length))


def test_a_batch_depends_on_the_step_alone(tasks, data):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"<|endoftext|>": 0, "a": 1, "<|im_end|>": 2, "b": 3}, "a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tasks.with_sentinels(tokenizer)
    rows, asked = {"text": np.ones(500, np.uint16)}, [([3] * 7, [3])]
    one, two = (tasks.Tasks(rows, asked, tokenizer, seed=7) for _ in range(2))
    a, b, other = one.batch(4, 16, 32), two.batch(4, 16, 32), one.batch(5, 16, 32)
    assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in vars(a))
    assert a.labels.shape[1] <= 16
    assert other.input_ids.shape != a.input_ids.shape or not torch.equal(a.input_ids, other.input_ids)
    last = a.attention_mask.sum(dim=1) - 1
    assert a.input_ids[torch.arange(16), last].eq(2).all(), "prompts end with the end mark"
    assert (a.input_ids[a.attention_mask == 0] == tasks.PAD).all()
