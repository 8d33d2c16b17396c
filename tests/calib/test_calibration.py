"""Traces, what is learnt from them, and replaying them: on a real, if random, model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy

import edgemoe
from edgemoe.calib.routing import Setting, fit_routing, measure_recall, simulate
from edgemoe.calib.trace import read_trace, record_trace
from edgemoe.engine.prediction import build_predictor, fitted_predictor
from edgemoe.engine.stored_weights import read_dense_weights
from edgemoe.errors import RequestError, StoreError, TraceError
from edgemoe.experts import POLICIES, NoPredictor, save_fitted
from edgemoe.models import read_spec
from edgemoe.native import dequantize
from edgemoe.store import DEVICES, Device, attach_file, open_store

TEXTS = {
    name: np.random.default_rng(seed).integers(3, 320, count).tolist()
    for name, seed, count in (("one", 1, 700), ("two", 2, 450))
}


def trace_store(store, folder, texts=TEXTS, **options):
    with edgemoe.load(store, "4GiB", context=128, predictor="none", **options) as model:
        return record_trace(model.engine, texts, folder)


@pytest.fixture(scope="module")
def trace(tiny_store, tmp_path_factory):
    return trace_store(tiny_store, tmp_path_factory.mktemp("trace") / "made")


@pytest.fixture(scope="module")
def fitted(trace, tiny_store):
    store = open_store(tiny_store)
    spec = read_spec(store.config)
    return fit_routing(trace, spec, read_dense_weights(spec, store))


def test_a_trace_is_what_decoding_does_at_any_budget(trace, tiny_store, tmp_path):
    other = trace_store(tiny_store, tmp_path / "other", cache="32KiB")
    for name in ("experts", "weights", "states"):
        assert np.array_equal(getattr(trace, name), getattr(other, name))
    assert trace.num_tokens == 1150
    assert trace.starts == [0, 128, 256, 384, 512, 640, 700, 828, 956, 1084]
    assert trace.sources == {"one": 700, "two": 450}


def test_a_trace_holds_what_the_routers_saw_and_chose(trace, tiny_store):
    store = open_store(tiny_store)
    weights = read_dense_weights(read_spec(store.config), store)
    for position in range(trace.catalog.num_layers):
        router = weights.matrix(f"layers.{position}.router.weight")
        rows = dequantize(router.packed, router.format, router.num_rows, router.num_cols)
        logits = trace.states[:, position].astype(np.float32) @ rows.T
        best = np.argsort(-logits, axis=1)[:, : trace.top_k]
        same = [
            set(a) == set(b) for a, b in zip(best.tolist(), trace.experts[:, position].tolist(), strict=True)
        ]
        assert np.mean(same) > 0.98, "but for ties that half precision makes"


def test_traces_are_refused_clearly(trace, tiny_store, tmp_path):
    made = trace_store(tiny_store, tmp_path / "made", {"text": TEXTS["one"][:64]})
    with pytest.raises(RequestError, match="exists"):
        trace_store(tiny_store, tmp_path / "made")
    with pytest.raises(RequestError, match="no text to trace"):
        trace_store(tiny_store, tmp_path / "none", {"text": [5]})
    assert not list(tmp_path.glob("*.partial"))
    with pytest.raises(TraceError, match="is no trace"):
        read_trace(tmp_path / "absent")
    np.save(tmp_path / "made" / "experts.npy", made.experts[:-1])
    with pytest.raises(TraceError, match="damaged trace"):
        read_trace(tmp_path / "made")
    np.save(tmp_path / "made" / "experts.npy", np.full_like(made.experts, 99))
    with pytest.raises(TraceError, match="damaged trace"):
        read_trace(tmp_path / "made")
    shutil.copytree(tmp_path / "made", tmp_path / "old")
    facts = json.loads((tmp_path / "old" / "trace.json").read_text())
    (tmp_path / "old" / "trace.json").write_text(json.dumps({**facts, "version": 0}))
    with pytest.raises(TraceError, match="trace again"):
        read_trace(tmp_path / "old")


def test_fitted_routers_forecast_better_than_the_routers_as_they_are(trace, fitted, tiny_store):
    routing, report = fitted
    store = open_store(tiny_store)
    spec = read_spec(store.config)
    plain = build_predictor(spec, read_dense_weights(spec, store), store, "gate")
    corrected = fitted_predictor(routing, "gate-fitted", trace.num_experts)
    held_out = (report.num_tokens, trace.num_tokens)
    before, after = (measure_recall(p, trace, *held_out).mean() for p in (plain, corrected))
    assert after[0] > before[0] + 0.02
    assert all(exact <= wider <= 1 for exact, wider in (before, after))
    assert after[0] > trace.top_k / trace.num_experts[0] + 0.2, "no better than chance"


def test_tables_learn_which_expert_follows_which(trace, tiny_store):
    """A trace in which each layer's choice follows from the two before: only a table can know it."""
    rng = np.random.default_rng(0)
    rule = rng.permutation(4)
    experts = np.array(trace.experts)
    for token in range(len(experts)):
        pair = rng.integers(0, 4)
        for position in range(experts.shape[1]):
            experts[token, position] = [2 * pair, 2 * pair + 1]
            pair = rule[pair]
    store = open_store(tiny_store)
    spec = read_spec(store.config)
    made = replace(trace, experts=experts)
    routing, report = fit_routing(made, spec, read_dense_weights(spec, store))
    table = fitted_predictor(routing, "table", made.num_experts)
    recall = measure_recall(table, made, report.num_tokens, made.num_tokens)
    assert recall.exact[1:].min() > 0.99
    assert recall.exact[0] < 0.6, "nothing says how a token begins"


def test_the_fitted_forecast_of_the_next_token_finds_more_than_frequency(trace, tiny_store):
    """A trace in which each expert chosen follows from the one before, and all are equally frequent."""
    experts = np.array(trace.experts)
    num_experts = trace.num_experts[0]
    for token in range(1, len(experts)):
        experts[token] = (experts[token - 1] + 1) % num_experts
    store = open_store(tiny_store)
    spec = read_spec(store.config)
    made = replace(trace, experts=experts)
    routing, _ = fit_routing(made, spec, read_dense_weights(spec, store))
    assert sorted(routing.next_uses) == list(range(trace.catalog.num_layers))
    setting = Setting(made, 250, DEVICES["nvme"], 2e-4)
    knowing = replace(setting, next_use=routing.next_use())
    runs = {
        (policy, s is knowing): simulate(s, 0.4, policy, NoPredictor(), "none").hit_share
        for policy in ("edgemoe", "forecast")
        for s in (setting, knowing)
    }
    assert runs["edgemoe", True] == runs["edgemoe", False] == runs["forecast", False]
    assert runs["forecast", True] > runs["edgemoe", True] + 0.03


def test_what_was_fitted_for_another_model_is_refused(fitted, store_copy):
    routing, _ = fitted
    gate, table, next_use = routing.gates[0], routing.tables[1], routing.next_uses[0]
    others = [
        replace(routing, gates={0: replace(gate, weights=gate.weights[:, 32:])}),
        replace(routing, gates={0: replace(gate, targets=((9, len(gate.weights)),))}),
        replace(routing, tables={1: replace(table, older=table.older[1:])}),
        replace(routing, next_uses={0: next_use[1:]}),
        replace(routing, next_uses={9: next_use}),
    ]
    for other in others:
        save_fitted(open_store(store_copy), other)
        with pytest.raises(StoreError, match="fitted for another model; run `edgemoe fit` again"):
            edgemoe.load(store_copy, "4GiB", context=128, predictor="hybrid")
        # It does not keep the store from running.
        with (
            pytest.warns(UserWarning, match=r"again; the store is run without it"),
            edgemoe.load(store_copy, "4GiB", context=128) as model,
        ):
            assert model.generate([1], max_tokens=2).token_ids


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: {"gate.0.weights": tensors["gate.0.weights"]},
        lambda tensors: {**tensors, "gate.x.weights": tensors["gate.0.weights"]},
        lambda tensors: {**tensors, "strange": tensors["gate.0.weights"]},
        lambda tensors: {**tensors, "gate.0.targets": tensors["gate.0.targets"][:, :1].copy()},
        lambda tensors: {**tensors, "gate.0.targets": tensors["gate.0.targets"].astype(np.float32)},
        lambda tensors: {**tensors, "gate.0.weights": np.full_like(tensors["gate.0.weights"], np.nan)},
        lambda tensors: {**tensors, "table.1.single": tensors["table.1.single"][0].copy()},
        lambda tensors: {**tensors, "table.1.older": tensors["table.1.older"][:, :1].copy()},
        lambda tensors: {**tensors, "table.1.weight": np.zeros(0, np.float32)},
        lambda tensors: {**tensors, "next_use.0.weights": np.zeros((0, 0), np.float16)},
    ],
)
def test_a_predictor_that_was_made_to_harm_does_not_keep_a_store_from_running(fitted, store_copy, change):
    store = save_fitted(open_store(store_copy), fitted[0])
    (name,) = (f for f in store.manifest.files if f.startswith("predictor-"))
    changed = safetensors.numpy.save(change(safetensors.numpy.load_file(store_copy / name)))
    attach_file(store, "predictor", ".safetensors", changed)
    with (
        pytest.warns(UserWarning, match=r"again; the store is run without it"),
        edgemoe.load(store_copy, "4GiB", context=128, cache="64KiB") as model,
    ):
        assert len(model.generate([1, 2], max_tokens=4).token_ids) == 4
    with pytest.raises(StoreError, match="run `edgemoe fit` again"):
        edgemoe.load(store_copy, "4GiB", context=128, predictor="hybrid")


def test_what_was_fitted_survives_the_store(fitted, trace, store_copy):
    routing, _ = fitted
    store = save_fitted(open_store(store_copy), routing)
    assert list(store.verify()) == []
    prompt = TEXTS["one"][:40]
    with edgemoe.load(store_copy, "4GiB", context=128, cache="64KiB", predictor="none") as model:
        expected = model.generate(prompt, max_tokens=24).token_ids
    for predictor in ("table", "gate", "gate-fitted", "hybrid", "auto"):
        with edgemoe.load(store_copy, "4GiB", context=128, cache="64KiB", predictor=predictor) as model:
            assert model.generate(prompt, max_tokens=24).token_ids == expected
            assert "predictor" in {item.key for item in model.memory.items}
    for policy in POLICIES:
        with edgemoe.load(
            store_copy, "4GiB", context=128, cache="64KiB", predictor="none", policy=policy
        ) as model:
            assert model.generate(prompt, max_tokens=24).token_ids == expected
            expected_uses = model.engine.experts.cache.statistics.expected
            assert expected_uses.any() == (policy == "forecast")
            assert ("predictor" in {item.key for item in model.memory.items}) == (policy == "forecast")
    with pytest.raises(RequestError, match="no predictor 'oracle'; choose one of"):
        edgemoe.load(store_copy, predictor="oracle")


def test_predictors_that_need_fitting_say_so(tiny_store):
    with pytest.raises(RequestError, match="edgemoe fit"):
        edgemoe.load(tiny_store, predictor="hybrid")


def test_fitting_refuses_another_models_trace(trace, fitted, tiny_store):
    store = open_store(tiny_store)
    spec = read_spec(store.config)
    weights = read_dense_weights(spec, store)
    with pytest.raises(RequestError, match="another model"):
        fit_routing(replace(trace, states=trace.states[:, :, :32]), spec, weights)
    with pytest.raises(RequestError, match="fitting needs"):
        fit_routing(replace(trace, states=trace.states[:20]), spec, weights)


@pytest.fixture(scope="module")
def setting(trace):
    return Setting(trace, 250, DEVICES["jetson-tx2-ssd"], 2e-4)


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_no_policy_beats_belady(setting, share):
    best = simulate(setting, share, "belady", NoPredictor(), "none")
    for policy in POLICIES:
        run = simulate(setting, share, policy, NoPredictor(), "none")
        assert run.hit_share <= best.hit_share
        assert run.share_of_belady == pytest.approx(run.hit_share / best.hit_share)
        assert run.bytes_read >= best.bytes_read
        assert run.bound_ratio >= 1


def test_with_room_for_all_each_expert_is_read_once(setting):
    run = simulate(setting, 1.0, "lru", NoPredictor(), "none")
    used = {
        (position, expert)
        for token in setting.trace.experts[: setting.num_tokens]
        for position, row in enumerate(token.tolist())
        for expert in row
    }
    sizes = dict(zip(setting.trace.catalog.keys, setting.trace.catalog.num_bytes.tolist(), strict=True))
    assert run.bytes_read * setting.num_tokens == sum(sizes[key] for key in used)


def test_slower_storage_stalls_more_and_reading_ahead_less(setting, fitted):
    slow = replace(setting, device=Device(5e6, 1e-3))
    runs = [simulate(s, 0.4, "edgemoe", NoPredictor(), "none") for s in (setting, slow)]
    assert runs[0].stall_s < runs[1].stall_s
    gate = fitted_predictor(fitted[0], "gate-fitted", setting.trace.num_experts)
    ahead = simulate(setting, 0.4, "edgemoe", gate, "gate-fitted")
    assert ahead.stall_s < runs[0].stall_s
    assert ahead.hit_share > runs[0].hit_share
    # Over all of the trace: until it has compared for the first time the governor reads ahead.
    whole = replace(slow, num_tokens=setting.trace.num_tokens)
    far = simulate(whole, 0.4, "edgemoe", gate, "gate-fitted")
    assert far.wasted_bytes <= 0.05 * far.bytes_read, "where nothing can be hidden, nothing is guessed"
