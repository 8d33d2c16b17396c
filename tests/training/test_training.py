"""The training scripts, in their smallest form, on text that the test makes itself."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

FOLDER = Path(__file__).parents[2] / "training"
NAMES, THINGS = ("Lily", "Tom", "Anna", "Ben"), ("river", "garden", "house", "forest")
# A model that learns nothing stays near log(512) = 6.2 nats; the text has far fewer choices.
LOSS_TO_REACH = 2.5


def stories(seed, count):
    draw = random.Random(seed)
    return "<|endoftext|>\n".join(
        f"Once upon a time {draw.choice(NAMES)} went to the {draw.choice(THINGS)}. "
        f"{draw.choice(NAMES)} saw a little {draw.choice(('cat', 'dog', 'bird'))} and was happy.\n"
        for _ in range(count)
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "tinystories.train.txt").write_text(stories(1, 1500))
    (folder / "tinystories.valid.txt").write_text(stories(2, 200))
    return folder


def script(name, *arguments):
    done = subprocess.run(
        [sys.executable, FOLDER / name, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def train(data, out, *more):
    options = ["--size", "smoke", "--no-compile", "--vocab", 512, "--batch", 8, "--length", 64, "--steps", 60]
    script("train.py", "--data", data, "--out", out, *options, *more)
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return out, train(data, out)


def test_the_loss_falls_below_what_is_stated(trained):
    out, log = trained
    assert log[-1]["step"] == 60
    assert log[-1]["loss"] < LOSS_TO_REACH
    assert (out / "loss.png").stat().st_size > 1000


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(trained, data, tmp_path):
    train(data, tmp_path, "--stop-after", 30)
    resumed, whole = train(data, tmp_path)[-1], trained[1][-1]
    assert resumed["tokens"] == whole["tokens"]
    # Sums of several threads are not always in the same order; a state not restored costs far more.
    assert resumed["loss"] == pytest.approx(whole["loss"], abs=0.02)


def test_the_model_loads_elsewhere_and_both_programs_agree_on_it(trained, data):
    out, _ = trained
    losses = json.loads(
        script("evaluate.py", "--data", data, "--model", out / "model", "--tokens", 1500, "--json")
    )
    assert set(losses) == {"stories", "requests"}
    assert all(abs(loss["difference"]) < 1e-3 for loss in losses.values())
    assert losses["stories"]["edgemoe"] < LOSS_TO_REACH


def test_routing_facts_add_up(trained, data):
    out, _ = trained
    options = ["--data", data, "--model", out / "model", "--tokens", 600, "--picture", out / "routing.png"]
    facts = json.loads(script("routing_facts.py", *options, "--json"))
    for fact in facts["domains"].values():
        assert all(abs(sum(layer) - 1) < 1e-3 for layer in fact["load"])
        assert 0 < fact["entropy"] <= 1
        assert 0.2 <= fact["top_pair_share"] <= 1
    assert (out / "routing.png").stat().st_size > 1000
