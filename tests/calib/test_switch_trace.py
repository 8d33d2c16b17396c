"""Traces of a model with an encoder: the prompt's rows for its layers, the answer's for the decoder's."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from helpers.tiny_switch import write_switch

import edgemoe
from edgemoe.calib.routing import fit_routing
from edgemoe.calib.trace import record_trace
from edgemoe.calib.widths.quality import compare
from edgemoe.convert import convert
from edgemoe.engine.stored_weights import read_dense_weights
from edgemoe.quant import BitPlan, ExpertFormats
from edgemoe.store import open_store

TEXT = np.random.default_rng(5).integers(3, 320, 300).tolist()


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("switch")
    checkpoint = write_switch(folder / "checkpoint", "base", router_bias=True)
    for name in ("q2", "f32"):
        convert(checkpoint, folder / name, BitPlan.uniform(name, "f32"))
    return folder


class Choices:
    def __init__(self):
        self.found = {}

    def layer_runs(self, event):
        self.found.setdefault(event.position, []).extend(event.expert_ids.tolist())


def test_rows_are_tokens_of_prompts_and_of_answers(stores, tmp_path):
    with edgemoe.load(stores / "f32", "4GiB", context=64, predictor="none") as model:
        trace = record_trace(model.engine, {"text": TEXT[:100]}, tmp_path / "trace")
        assert (trace.num_tokens, trace.starts) == (50, [0, 32])
        model.engine.experts.observer = seen = Choices()
        for prompt, answer in ((TEXT[:32], TEXT[32:64]), (TEXT[64:82], TEXT[82:100])):
            model.logits(prompt, [0, *answer[:-1]])
    for position in range(4):
        assert trace.experts[:, position].tolist() == seen.found[position]
    steps = trace.of_steps()
    assert steps.catalog.layers == [5, 7]
    assert np.array_equal(steps.experts, trace.experts[:, 2:])
    assert np.array_equal(steps.states, trace.states[:, 2:])


def test_what_is_fitted_are_the_layers_of_steps(stores, tmp_path):
    store = open_store(stores / "f32")
    with edgemoe.load(stores / "f32", "4GiB", context=64, predictor="none") as model:
        trace = record_trace(model.engine, {"text": TEXT}, tmp_path / "trace")
        spec = model.spec
    fitted, report = fit_routing(trace, spec, read_dense_weights(spec, store))
    assert sorted(fitted.gates) == [0, 1]
    assert [target for target, _ in fitted.gates[1].targets] == [0], "the next token's first layer"
    assert all(0 <= recall.exact[1] <= 1 for recall in report.recall.values())


def test_plain_gates_know_the_bias_of_a_router(stores):
    """On the state that a router itself sees they are that router."""
    from edgemoe.engine.prediction import plain_weights
    from edgemoe.experts import gate_features

    store = open_store(stores / "f32")
    with edgemoe.load(stores / "f32", "4GiB", context=64) as model:
        spec = model.spec
    weights = read_dense_weights(spec, store)
    rows = plain_weights(spec, weights, 5, 5)
    x = np.random.default_rng(0).standard_normal((3, spec.width)).astype(np.float32)
    features = gate_features(x, np.zeros((3, 1), np.int32), np.zeros((3, 1), np.float32), 8)
    router = weights.matrix("layers.5.router.weight")
    from edgemoe import native

    expected = native.matmul(x, router) + weights.vector("layers.5.router.bias")
    np.testing.assert_allclose(features @ rows.T, expected, rtol=1e-4, atol=1e-5)


def test_widths_are_compared_on_answers(stores):
    windows = [TEXT[:64], TEXT[64:128]]
    with edgemoe.load(stores / "f32", "4GiB", context=64) as a, edgemoe.load(stores / "q2", context=64) as b:
        same, worse = compare(a.engine, a.engine, windows), compare(a.engine, b.engine, windows)
    assert same.num_tokens.tolist() == [32, 32]
    assert same.mean_divergence == pytest.approx(0, abs=1e-9)
    assert worse.mean_divergence > 1e-4


def test_formats_of_experts_without_a_gate():
    assert ExpertFormats.from_json(["q4", "q6"]) == ExpertFormats(None, "q4", "q6")
    assert ExpertFormats.uniform("q4").of(("up", "down")).to_json() == ["q4", "q4"]
    for names in (["q4"], ["q4"] * 4):
        with pytest.raises(ValueError, match=r"formats of one expert|not enough values"):
            ExpertFormats.from_json(names)
