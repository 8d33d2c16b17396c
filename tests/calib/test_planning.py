"""Choosing widths: the arithmetic by brute force, the measurements on a real, if random, model."""

from __future__ import annotations

import errno
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgemoe
from edgemoe.calib.widths import ChosenWidths, Ladder, Quality, compare, knapsack, smallest_within
from edgemoe.calib.widths.ladder import OPTIONS, UNIFORM, build_ladder
from edgemoe.calib.widths.planning import by_rank
from edgemoe.calib.widths.quality import METRICS, PERPLEXITY
from edgemoe.calib.widths.sensitivity import scaled_to
from edgemoe.cli.app import run_app
from edgemoe.convert import convert
from edgemoe.errors import PlanError, RequestError
from edgemoe.executors import Here
from edgemoe.quant import BitPlan, ExpertFormats
from edgemoe.store import open_store

BITS = {"q2": 3, "q3": 4, "q4": 5, "q6": 7, "q8": 9}
WIDTHS = tuple(BITS)
KEYS = [(0, 0), (0, 1), (1, 0), (1, 1)]


def sizes_of(keys):
    return {key: dict(BITS) for key in keys}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_knapsack_is_at_most_one_step_from_the_best(data):
    costs = {}
    for key in KEYS:
        drops = data.draw(st.lists(st.floats(0.01, 10), min_size=5, max_size=5))
        costs[key] = dict(zip(WIDTHS, np.cumsum(drops[::-1])[::-1].tolist(), strict=True))
    budget = data.draw(st.integers(4 * 3, 4 * 9))
    chosen = knapsack(costs, sizes_of(KEYS), budget)
    assert sum(BITS[name] for name in chosen.values()) <= budget
    cost = sum(costs[key][name] for key, name in chosen.items())

    def best_within(limit):
        plans = itertools.product(WIDTHS, repeat=len(KEYS))
        allowed = (p for p in plans if sum(BITS[name] for name in p) <= limit)
        return min(sum(costs[k][n] for k, n in zip(KEYS, p, strict=True)) for p in allowed)

    assert best_within(budget) <= cost + 1e-9
    largest_step = max(BITS.values()) - min(BITS.values())
    if budget - largest_step >= 4 * 3:
        assert cost <= best_within(budget - largest_step) + 1e-9


def test_the_knapsack_gives_bits_where_they_matter_and_refuses_too_little():
    costs = {key: {name: (10.0 if key == (1, 1) else 0.1) / BITS[name] for name in WIDTHS} for key in KEYS}
    chosen = knapsack(costs, sizes_of(KEYS), 4 * 3 + 6)
    assert chosen == {(0, 0): "q2", (0, 1): "q2", (1, 0): "q2", (1, 1): "q8"}
    with pytest.raises(PlanError, match=r"too little: at 2 bits the experts take \d+KiB"):
        knapsack(costs, sizes_of(KEYS), 11)


def test_plans_by_rank_raise_the_most_important_first():
    propose = by_rank(dict(zip(KEYS, (0.1, 0.9, 0.5, 0.2), strict=True)), sizes_of(KEYS), WIDTHS)
    assert list(propose(4 * 3 + 2).values()).count("q3") == 2
    assert {key for key, name in propose(4 * 3 + 2).items() if name == "q3"} == {(0, 1), (1, 0)}
    assert set(propose(4 * 9).values()) == {"q8"}


def quality(increase, spread=0.0):
    tokens = np.full(16, 100)
    nats = 300 + 100 * (np.log1p(increase) + spread * np.linspace(-1, 1, 16))
    hits = np.full(16, 40.0)
    return Quality(tokens, np.full(16, 300.0), nats, np.full(16, 2 * 100 * increase), hits, hits - 5)


def test_quality_has_an_increase_and_an_interval_around_it():
    measured = quality(0.02, spread=0.01)
    low, high = measured.interval()
    assert measured.increase == pytest.approx(0.02)
    assert 0.01 < low < 0.02 < high < 0.03
    assert quality(0.02).interval() == pytest.approx((0.02, 0.02))


def test_a_bound_is_one_sided_and_tighter_beside_fewer_bits():
    noisy, clear = quality(0.001, spread=0.01), quality(0.05, spread=0.01)
    own = PERPLEXITY.bound(noisy)
    assert 0.001 < own < noisy.interval()[1], "95 % of the doubt is above a one-sided bound"
    assert PERPLEXITY.bound(noisy, clear) < 0.5 * own, "its divergence says that it rises little"
    assert PERPLEXITY.bound(noisy, clear) > 0.001
    # Nothing is gained by a controlled bound where the plan's own figures are the clear ones.
    assert PERPLEXITY.bound(clear, noisy) == pytest.approx(clear.interval()[1], rel=1e-6)


def test_accuracy_and_divergence_can_be_limited_too():
    measured = quality(0.02)
    assert METRICS["accuracy"].bound(measured) == pytest.approx(0.05)
    assert METRICS["kl"].bound(measured) == pytest.approx(0.04)
    assert METRICS["kl"].show(0.04) == "0.0400 nats"
    assert METRICS["accuracy"].show(0.05) == "5.00%"


def test_the_search_ends_at_the_smallest_size_that_meets_the_tolerance():
    sizes = {(0, e): {name: 1000 * bits for name, bits in BITS.items()} for e in range(40)}
    costs = {key: {name: 1.0 / BITS[name] for name in WIDTHS} for key in sizes}

    def measure(widths):
        return quality(0.3 * sum(1 / BITS[name] ** 2 for name in widths.values()) / len(widths))

    found = smallest_within(0.015, lambda budget: knapsack(costs, sizes, budget), sizes, measure)
    assert found.quality.increase <= 0.015
    smaller = knapsack(costs, sizes, int(0.97 * found.num_bytes))
    assert measure(smaller).increase > 0.015
    with pytest.raises(PlanError, match="cannot be met"):
        smallest_within(0.0001, lambda budget: knapsack(costs, sizes, budget), sizes, measure)


# No window of it like another: what a profile has seen is left out when a plan is measured.
WORDS = "once upon a time there was river the old fox went to and sang moon small grey stone"
TEXT = " ".join(np.random.default_rng(5).choice(WORDS.split(), 800))


@pytest.fixture(scope="module")
def ladder(tiny_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ladder") / "work"
    build_ladder(tiny_checkpoint, folder, "q8", Here())
    with Ladder(folder, folder / "scratch" / "mixed") as made:
        yield made


def test_a_ladder_runs_any_mix_as_the_store_of_that_mix_does(ladder, tiny_checkpoint, tmp_path):
    rng = np.random.default_rng(3)
    widths = {key: OPTIONS[rng.integers(0, len(OPTIONS))] for key in ladder.keys}
    convert(tiny_checkpoint, tmp_path / "mixed", BitPlan(ExpertFormats.uniform("q4"), "q8", widths))
    prompt = rng.integers(3, 320, 60).tolist()
    engine = ladder.load(widths, 128, 4 << 30)
    picked = np.concatenate([rows.copy() for rows in engine.session.logits(prompt)])
    engine.experts.close()
    for cache in (None, "64KiB"):  # records of many sizes in a cache of a few
        with edgemoe.load(tmp_path / "mixed", "4GiB", context=128, cache=cache) as model:
            assert np.array_equal(model.logits(prompt), picked)


def test_the_original_does_not_differ_from_itself_and_fewer_bits_differ_more(ladder):
    windows = [np.random.default_rng(seed).integers(3, 320, 100).tolist() for seed in range(4)]
    reference = ladder.load({}, 128, 4 << 30)
    divergences = []
    for name in ("bf16", "q8", "q4", "q2"):
        widths = dict.fromkeys(ladder.keys, ExpertFormats.uniform(name))
        engine = ladder.load(widths, 128, 4 << 30)
        measured = compare(reference, engine, windows)
        divergences.append(measured.mean_divergence)
        engine.experts.close()
    reference.experts.close()
    assert divergences[0] == pytest.approx(0, abs=1e-12)
    assert divergences == sorted(divergences)


@pytest.mark.parametrize("method", ["knapsack", "exact", "paper"])
def test_plan_and_convert_by_command(tiny_checkpoint, tmp_path, capsys, method):
    text, out = tmp_path / "text.txt", tmp_path / "plan.json"
    text.write_text(TEXT)
    common = ["plan", tiny_checkpoint, "--text", text, "-o", out, "--window", 64, "--memory", "4GiB"]
    assert run_app([*map(str, common), "--bits", "8", "--method", method, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["bits_per_weight"] <= 8
    assert len(record["widths"]) > 1
    assert not out.with_name("plan.json.work").exists()
    assert run_app(["convert", str(tiny_checkpoint), str(tmp_path / "store"), "--plan", str(out)]) == 0
    with edgemoe.load(tmp_path / "store", "4GiB", context=128) as model:
        assert len(model.generate([5, 6, 7], max_tokens=4).token_ids) == 4


def test_costs_follow_the_measurement_and_the_errors():
    q2, q3, *_, q8 = UNIFORM
    errors = {(0, 0): {q2: 4.0, q3: 1.0, q8: 0.0}, (0, 1): {q2: 0.0, q3: 0.0, q8: 0.0}}
    costs = scaled_to({(0, 0): 0.2, (0, 1): 0.5}, errors)
    assert costs[0, 0] == pytest.approx({q2: 0.2, q3: 0.05, q8: 0.0})
    assert costs[0, 1] == {q2: 0.0, q3: 0.0, q8: 0.0}  # no token ever chose it


def test_convert_chooses_widths_in_one_command(tiny_checkpoint, tmp_path, capsys):
    text, out = tmp_path / "text.txt", tmp_path / "store"
    text.write_text(3 * TEXT)
    common = ["convert", str(tiny_checkpoint), str(out), "--size", "100KiB"]
    with pytest.raises(RequestError, match="give some with --text FILE"):
        run_app(common)
    assert run_app([*common, "--text", str(text)]) == 0
    assert "bits per expert weight" in capsys.readouterr().err
    assert not out.with_name("store.work").exists()
    formats = {entry.formats for entry in open_store(out).manifest.experts.values()}
    assert len(formats) > 1
    with pytest.raises(RequestError, match="choose another place or give --overwrite"):
        run_app([*common, "--text", str(text)])


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ([], "say what to reach"),
        (["--tolerance", "2%", "--bits", "3"], "say what to reach"),
        (["--tolerance", "much"], "such as 2%"),
        (["--bits", "1"], "too little"),
        (["--bits", "4", "--method", "luck"], "no method 'luck'"),
        (["--tolerance", "2%", "--metric", "taste"], "no metric 'taste'"),
        (["--tolerance", "2%", "--metric", "kl"], "nats per token such as 0.01"),
        (["--bits", "4", "--profile", "."], "is no profile"),
        (["--tolerance", "0.000001%"], "cannot be met"),
    ],
)
def test_what_cannot_be_planned_is_refused(tiny_checkpoint, tmp_path, options, what):
    from edgemoe.errors import EdgeMoEError

    (tmp_path / "text.txt").write_text(TEXT)
    common = ["plan", tiny_checkpoint, "--text", tmp_path / "text.txt", "-o", tmp_path / "plan.json"]
    with pytest.raises(EdgeMoEError, match=what):
        run_app([*map(str, common), "--window", "64", "--memory", "4GiB", *options])


def test_a_plan_that_cannot_be_written_is_printed(tmp_path, monkeypatch, capsys):
    from edgemoe.errors import UnwrittenPlanError

    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    found = ChosenWidths(BitPlan.uniform("q3", "q8"), None, None)
    monkeypatch.setattr("edgemoe.workflows.plan.choose_widths", lambda *_, **__: found)
    monkeypatch.setattr("edgemoe.workflows.plan.replace_file", full)
    (tmp_path / "plan.json.work" / "trace").mkdir(parents=True)
    (tmp_path / "text.txt").write_text(TEXT)
    arguments = ["plan", "model", "--text", tmp_path / "text.txt", "-o", tmp_path / "plan.json", "--bits", 3]
    with pytest.raises(UnwrittenPlanError, match="No space left on device; its trace is"):
        run_app([str(argument) for argument in arguments])
    assert json.loads(capsys.readouterr().out) == found.plan.to_json()
    assert {path.name for path in tmp_path.iterdir()} == {"text.txt", "plan.json.work"}


def test_a_text_that_says_one_thing_for_ever_is_refused_before_the_widths_are_made(tiny_checkpoint, tmp_path):
    """Nothing of it is new to the profile, and a real model takes hours to convert."""
    from edgemoe.errors import EdgeMoEError

    (tmp_path / "text.txt").write_text("a river " * 2000)
    common = ["plan", tiny_checkpoint, "--text", tmp_path / "text.txt", "-o", tmp_path / "plan.json"]
    with pytest.raises(EdgeMoEError, match="the profile has not seen; this text has 0"):
        run_app([*map(str, common), "--bits", "4", "--window", "64", "--memory", "4GiB"])
    assert not list((tmp_path / "plan.json.work").glob("q*"))


def test_too_short_a_text_and_a_file_that_is_no_plan_are_refused(tiny_checkpoint, tmp_path):
    from edgemoe.errors import EdgeMoEError

    (tmp_path / "text.txt").write_text("Once upon a time")
    common = ["plan", tiny_checkpoint, "--text", tmp_path / "text.txt", "-o", tmp_path / "plan.json"]
    with pytest.raises(EdgeMoEError, match="planning needs 4 windows of 128 tokens"):
        run_app([*map(str, common), "--bits", "4"])
    with pytest.raises(EdgeMoEError, match="not a bit plan"):
        run_app(["convert", str(tiny_checkpoint), str(tmp_path / "o"), "--plan", str(tmp_path / "text.txt")])
