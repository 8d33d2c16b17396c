"""The training scripts, in their smallest form, on text that the test makes itself."""

from __future__ import annotations

import importlib
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
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
    assert list(facts["distances"]) == ["stories, requests"]
    assert (out / "routing.png").stat().st_size > 1000


@pytest.fixture
def routing_facts(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("routing_facts")


@pytest.mark.filterwarnings("default")  # transformers' own
def test_the_choices_counted_are_those_of_the_routers_in_transformers(trained, data, routing_facts):
    import torch
    from transformers import AutoModelForCausalLM

    model = trained[0] / "model"
    texts = routing_facts.held_out_tokens(data, model, 400)
    with routing_facts.full_precision_store(model) as store:
        ours, num_experts = routing_facts.routing(store, texts)
    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    assert num_experts == reference.config.num_experts
    for name, token_ids in texts.items():
        with torch.inference_mode():
            layers = reference(torch.tensor([token_ids]), output_router_logits=True).router_logits
        theirs = torch.stack([layer.topk(4, dim=-1).indices for layer in layers], dim=1).numpy()
        assert ours[name].shape == theirs.shape
        assert (np.sort(ours[name]) == np.sort(theirs)).mean() > 0.99  # all but ties
        assert (ours[name][:, :, 0] == theirs[:, :, 0]).mean() > 0.99


def test_facts_of_choices_counted_by_hand(routing_facts):
    # 4 tokens, 2 layers, 2 of 4 experts: layer 0 always takes 0 and 1; layer 1 takes 0, 1 then 2, 3 in turn.
    choices = np.array([[[0, 1], [0, 1]], [[0, 1], [2, 3]]] * 2)
    facts = routing_facts.facts_of(choices, 4)
    assert facts.load == [[0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25]]
    assert facts.entropy_by_layer == [0.5, 1]
    assert facts.reuse_by_layer == [1, 0]
    assert (facts.most_used, facts.least_used) == (1.5, 0.5)
    assert facts.top_path_share == 0.5  # the more frequent of two paths
    other = routing_facts.facts_of(choices[:, ::-1], 4)
    distances = routing_facts.distances({"a": facts, "b": other, "all": facts})
    assert distances == {"a, b": [0.5, 0.5]}
    extremes = routing_facts.extremes({"a": facts, "b": other, "c": facts, "all": facts})
    assert extremes == ("a, c (0.00)", "b, c (0.50)")


def test_pairs_of_different_layers_are_different(routing_facts):
    # Every token takes expert 0, then 1, then 0, then 1: three steps, none like another.
    choices = np.array([[[0], [1], [0], [1]]] * 5)
    assert routing_facts.facts_of(choices, 2).top_pair_share == pytest.approx(1 / 3)


def test_a_shuffle_takes_away_what_layers_know_of_each_other(routing_facts):
    draw = np.random.default_rng(0).integers(0, 2, 500)
    tied = np.repeat(draw[:, None, None], 4, axis=1)  # every layer chooses what the first chose
    facts = routing_facts.facts_of(tied, 2)
    assert facts.top_path_share >= 0.5  # one of two paths
    assert facts.shuffled_path_share < 0.3  # three of sixteen
