"""Profiles: they measure what a model does, they survive a kill, and plans and stores are made from them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import edgemoe
from edgemoe.calib.trace import read_trace
from edgemoe.calib.widths import (
    CalibrationOptions,
    Profile,
    ProfileOptions,
    choose_widths,
    compare,
    read_inputs,
    work,
)
from edgemoe.calib.widths.ladder import UNIFORM
from edgemoe.calib.widths.quality import quality_of
from edgemoe.calib.widths.replay import Replay
from edgemoe.calib.widths.search import Goal, PlanSearch
from edgemoe.calib.widths.sensitivity import (
    measured_alone,
    output_errors,
    predicted_divergence,
    rank_correlation,
    super_experts,
)
from edgemoe.cli.app import run_app
from edgemoe.convert import convert
from edgemoe.errors import ConversionError, EdgeMoEError, RequestError, TraceError
from edgemoe.quant import BitPlan, ExpertFormats

WINDOW = 64
WINDOWS = [np.random.default_rng(seed).integers(3, 320, WINDOW).tolist() for seed in range(24)]
OTHERS = [np.random.default_rng(seed).integers(3, 320, WINDOW).tolist() for seed in range(100, 112)]
OPTIONS_64 = ProfileOptions(WINDOW, "q8", 4 << 30)
WORDS = "once upon a time there was river the old fox went to and sang moon small grey stone"
TEXT = " ".join(np.random.default_rng(5).choice(WORDS.split(), 1000))


@contextmanager
def quiet(description, unit):
    yield lambda done, total: None


def make(checkpoint, folder, windows=WINDOWS):
    return Profile.make(checkpoint, folder, lambda store: windows, quiet, OPTIONS_64)


@pytest.fixture(scope="module")
def profile(tiny_checkpoint, tmp_path_factory):
    with make(tiny_checkpoint, tmp_path_factory.mktemp("profile") / "made") as made:
        made.find_fast()
        made.find_exact()
        yield made


def test_a_replayed_change_is_what_the_changed_model_does(profile, tmp_path):
    upper = UNIFORM[-1]
    ladder = profile.ladder
    base = ladder.load({}, WINDOW, 4 << 30, upper)
    replay = Replay(ladder, base, upper, profile.probes, tmp_path / "states.npy")
    for key in ((0, 1), (1, 4), (2, 7)):
        changed = ladder.load({key: UNIFORM[0]}, WINDOW, 4 << 30, upper)
        whole = compare(base, changed, profile.probes)
        changed.experts.close()
        replayed = quality_of(replay.change(key, UNIFORM[0]))
        assert replayed.mean_divergence == pytest.approx(whole.mean_divergence, rel=0.02)
        assert replayed.nats.sum() == pytest.approx(whole.nats.sum(), rel=1e-4)
    base.experts.close()


def test_fast_and_exact_agree_about_the_order(profile):
    ladder, found = profile.ladder, profile.found
    predicted = predicted_divergence(output_errors(ladder.keys, found), found)
    fast = [predicted[key][UNIFORM[0]] for key in ladder.keys]
    assert rank_correlation(fast, [measured_alone(ladder.keys, found)[key] for key in ladder.keys]) > 0.5


def test_ranks_correlate_as_they_should():
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, 99]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3, 4], [9, 7, 5, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)


def test_errors_of_matrices_add_up_and_fall_with_bits(profile):
    errors = output_errors(profile.ladder.keys, profile.found)
    for row in errors.values():
        q2, q3, q4, t2, t3 = (row[ExpertFormats.uniform(name)] for name in ("q2", "q3", "q4", "t2", "t3"))
        assert q2 >= q3 >= q4
        assert t2 >= t3 >= q4
        mixed = row[ExpertFormats("q2", "q2", "q4")] + row[ExpertFormats("q4", "q4", "q2")]
        assert mixed == pytest.approx(q2 + q4)


def test_rounding_for_inputs_changes_outputs_less(profile, tiny_checkpoint, tmp_path):
    """On probes, for which nothing was rounded."""
    convert(tiny_checkpoint, tmp_path / "plain", BitPlan.uniform("q2", "q8"))
    with edgemoe.load(tmp_path / "plain", "4GiB", context=WINDOW) as model:
        plain = compare(profile.reference, model.engine, OTHERS)
    q2 = ExpertFormats.uniform("q2")
    rounded = profile.measure(dict.fromkeys(profile.ladder.keys, q2), OTHERS)
    assert rounded.mean_divergence < 0.85 * plain.mean_divergence


def test_a_ladder_rounds_as_convert_with_its_trace_does(profile, tiny_checkpoint, tmp_path):
    inputs = read_inputs(profile.folder / "trace", profile.ladder.spec)
    assert inputs.identity == profile.inputs.identity
    convert(tiny_checkpoint, tmp_path / "store", BitPlan.uniform("q3", "q8"), inputs=inputs)
    ours = (profile.folder / "q3" / "experts-00000.safetensors").read_bytes()
    assert (tmp_path / "store" / "experts-00000.safetensors").read_bytes() == ours


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from calib.test_profile import make
from edgemoe.calib.widths import work
count = 0
whole = dict(work._KINDS)
def killing(kind):
    def measure(bench, item):
        global count
        count += 1
        if count == int(sys.argv[4]):
            os.kill(os.getpid(), signal.SIGKILL)
        return whole[kind](bench, item)
    return measure
work._KINDS.update({kind: killing(kind) for kind in whole})
with make(Path(sys.argv[1]), Path(sys.argv[2])) as profile:
    profile.find_fast()
    profile.find_exact()
"""


# 3 items of outputs, then 3 layers on 2 shards of text; these are entered, then come 3 on 2 shards alone.
@pytest.mark.parametrize(("after", "num_left"), [(2, 14), (7, 9), (12, 13)])
def test_a_killed_profile_goes_on_where_it_was(
    profile, tiny_checkpoint, tmp_path, monkeypatch, after, num_left
):
    folder = shutil.copytree(profile.folder, tmp_path / "copy")
    (folder / "measured.jsonl").unlink()
    tests = os.path.dirname(os.path.dirname(__file__))
    arguments = [sys.executable, "-c", KILLED, str(tiny_checkpoint), str(folder), tests, str(after)]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    torn = folder / "measured.jsonl"
    torn.write_bytes(torn.read_bytes()[:-7])  # and the last line is torn: all 9 items of it are lost
    measured = []
    whole = dict(work._KINDS)
    for kind in whole:
        monkeypatch.setitem(
            work._KINDS, kind, lambda bench, item: (measured.append(1), whole[item.kind](bench, item))[1]
        )
    with make(tiny_checkpoint, folder) as resumed:
        resumed.find_fast()
        resumed.find_exact()
        assert len(measured) == num_left
        for name, value in profile.found.items():
            if "_s " not in name:
                assert resumed.found[name] == value, name
    assert not list(folder.glob("scratch/*"))


def test_a_profile_is_one_process_at_a_time(profile, tiny_checkpoint):
    with pytest.raises(ConversionError, match="wait for it"):
        make(tiny_checkpoint, profile.folder)


def test_another_text_starts_anew_where_nothing_was_measured(profile, tiny_checkpoint, tmp_path):
    folder = shutil.copytree(profile.folder, tmp_path / "copy")
    with pytest.raises(RequestError, match="holds what was measured on another text"):
        make(tiny_checkpoint, folder, WINDOWS[:8])
    (folder / "measured.jsonl").unlink()
    with make(tiny_checkpoint, folder, WINDOWS[:8]) as other:
        assert other.found == {}
        assert other.inputs.identity != profile.inputs.identity
    with pytest.raises(RequestError, match="3 windows of 64 tokens to calibrate on; 4 are needed"):
        make(tiny_checkpoint, tmp_path / "short", WINDOWS[:3])


def test_a_profile_takes_no_folder_but_its_own(profile, tiny_checkpoint, tmp_path):
    checkpoint = shutil.copytree(tiny_checkpoint, tmp_path / "models" / "mine")
    before = {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))}
    for folder in (checkpoint, checkpoint.parent, tmp_path):
        with pytest.raises(RequestError, match="holds the checkpoint"):
            make(checkpoint, folder)
    with pytest.raises(RequestError, match="is a file"):
        make(checkpoint, checkpoint / "config.json")
    thesis = tmp_path / "work" / "source"  # the name of a file of ours
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    with pytest.raises(RequestError, match="holds files that no profile wrote"):
        make(checkpoint, thesis.parent)
    assert {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))}.items() >= before.items()
    assert [path.name for path in thesis.parent.iterdir()] == ["source"]


def test_measurements_outlive_another_checkpoint(profile, tiny_checkpoint, tmp_path):
    folder = shutil.copytree(profile.folder, tmp_path / "copy")
    measured = (folder / "measured.jsonl").read_bytes()
    moved = shutil.copytree(tiny_checkpoint, tmp_path / "moved")
    with make(moved, folder) as same:  # wherever it lies
        assert same.found == profile.found
    tensors = {name: 2 * tensor for name, tensor in load_file(moved / "model.safetensors").items()}
    save_file(tensors, moved / "model.safetensors", {"format": "pt"})
    with pytest.raises(RequestError, match="was made from another checkpoint"):
        make(moved, folder)
    assert (folder / "measured.jsonl").read_bytes() == measured
    assert (folder / "q2" / "edgemoe.json").exists()


def test_a_plan_is_measured_on_what_the_profile_has_not_seen(profile):
    search = PlanSearch(profile, [*WINDOWS, *OTHERS])
    choice = search.choose(Goal(bits_per_weight=6.0), "exact")
    assert choice.quality.num_tokens.sum() == 12 * (WINDOW - 1)
    assert len({formats.up for formats in choice.widths.values()}) > 1
    with pytest.raises(RequestError, match="has not seen; this text has 0"):
        PlanSearch(profile, WINDOWS)


def test_super_experts_are_found_and_kept_at_the_highest_width(tiny_checkpoint, tmp_path):
    checkpoint = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    tensors = dict(load_file(checkpoint / "model.safetensors"))
    name = "model.layers.1.mlp.experts.5.down_proj.weight"
    assert name in tensors or "model.layers.1.mlp.experts.down_proj" in tensors
    if name in tensors:
        tensors[name] = 200 * tensors[name]
    else:
        tensors["model.layers.1.mlp.experts.down_proj"][5] *= 200
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    with make(checkpoint, tmp_path / "profile") as made:
        made.find_fast()
        assert super_experts(made.ladder.keys, made.found) == [(1, 5)]
        search = PlanSearch(made, OTHERS)
        propose, sizes = search.proposals("knapsack")
        smallest = sum(min(row.values()) for row in sizes.values())
        assert propose(smallest)[1, 5] == UNIFORM[-1]
        assert search.choose(Goal(tolerance=9.0)).num_bytes == smallest


def test_traces_that_cannot_be_rounded_for_are_refused(profile, tiny_checkpoint, tmp_path):
    trace = read_trace(profile.folder / "trace")
    folder = shutil.copytree(profile.folder / "trace", tmp_path / "trace")
    states = np.array(trace.states)
    states[3, 1, 2] = np.inf
    np.save(folder / "states.npy", states)
    with pytest.raises(TraceError, match="not finite"):
        read_inputs(folder, profile.ladder.spec)
    np.save(folder / "states.npy", states[:, :, :32])
    with pytest.raises(RequestError, match="another model"):
        read_inputs(folder, profile.ladder.spec)


def test_profile_plan_and_convert_by_command(tiny_checkpoint, tmp_path, capsys):
    text, more = tmp_path / "text.txt", tmp_path / "more.txt"
    text.write_text(TEXT)
    more.write_text(TEXT.upper())
    folder, out, store = tmp_path / "made", tmp_path / "plan.json", tmp_path / "store"
    common = ["--memory", "4GiB", "--window", "64"]

    def run(*arguments):
        assert run_app([str(argument) for argument in arguments]) == 0
        return capsys.readouterr().out

    printed = run("profile", tiny_checkpoint, "--text", text, "-o", folder, *common, "--method", "exact")
    assert "no super experts" in printed
    assert "rank correlation of fast with exact" in printed
    record = json.loads(run("profile", tiny_checkpoint, "--text", text, "-o", folder, *common, "--json"))
    assert record["num_experts"] == 24
    plan = ["plan", tiny_checkpoint, "--profile", folder, "--text", more, "-o", out, "--memory", "4GiB"]
    assert run_app([str(argument) for argument in (*plan, "--bits", "7")]) == 0
    assert "next: edgemoe convert" in capsys.readouterr().err
    options = CalibrationOptions(budget_bytes=4 << 30)
    texts = {"more.txt": TEXT.upper()}
    chosen = choose_widths(tiny_checkpoint, texts, Goal(bits_per_weight=7), folder, options, has_profile=True)
    assert chosen.plan.to_json() == json.loads(out.read_text())
    assert chosen.inputs.identity == chosen.plan.origin["inputs"]
    run("convert", tiny_checkpoint, store, "--plan", out)
    with edgemoe.load(store, "4GiB", context=64) as model:
        assert len(model.generate([5, 6, 7], max_tokens=4).token_ids) == 4

    def refused(what, *arguments):
        with pytest.raises(EdgeMoEError, match=what):
            run(*arguments)

    report = tmp_path / "report"
    run("report", folder, "--plan", out, "-o", report)
    names = {path.name for path in report.iterdir()}
    assert names == {"report.md", "report.html", "sensitivity.png", "curves.png", "widths-plan.png"}
    page, notes = (report / "report.html").read_text(), (report / "report.md").read_text()
    for name in names - {"report.md", "report.html"}:
        assert (report / name).read_bytes().startswith(b"\x89PNG")
        assert name in page
        assert name in notes
    assert "| plan.json | knapsack |" in notes

    refused("plan.json exists", *plan, "--bits", "7")
    shutil.move(out, tmp_path / "kept.json")
    shutil.rmtree(tmp_path / "plan.json.trace")
    (tmp_path / "plan.json.trace").mkdir()
    refused("is no trace, and the plan's would replace it", *plan, "--bits", "7")
    refused("there is no folder", *plan[:-4], "-o", tmp_path / "no" / "plan.json", "--bits", "7")
    refused("no method 'foo'", *plan[:-4], "-o", tmp_path / "other.json", "--bits", "7", "--method", "foo")
    (tmp_path / "plan.json.trace").rmdir()
    shutil.move(tmp_path / "kept.json", out)
    refused("exists; choose another name, or remove it", "report", folder, "-o", report)
    refused("is no profile", "report", tiny_checkpoint, "-o", tmp_path / "none")
    refused("leave out --window", *plan[:-4], "-o", tmp_path / "other.json", "--bits", "7", "--window", "32")
    refused("no method 'slow'", "profile", tiny_checkpoint, "--text", text, "-o", folder, "--method", "slow")
    convert_again = ["convert", tiny_checkpoint, tmp_path / "again", "--plan", out]
    refused("give it with --trace FOLDER", *convert_again)
    refused("is not the trace that the plan was measured with", *convert_again, "--trace", folder / "probes")
    refused("for experts of 2 to 6 bits", *convert_again[:3], "--bits", 8, "--trace", folder / "trace")
    refused("trace the text themselves", *convert_again[:3], "--size", "1MiB", "--trace", folder / "trace")


def test_two_forms_of_the_model_share_the_budget(tiny_checkpoint, tmp_path, monkeypatch):
    import edgemoe.calib.widths.ladder as ladder
    from edgemoe.errors import BudgetError

    plans, load = [], ladder.load_engine

    def recorded(store, options):
        engine = load(store, options)
        plans.append((options, sum(item.num_bytes for item in engine.memory.items)))
        return engine

    monkeypatch.setattr(ladder, "load_engine", recorded)
    budget = 3 << 30
    options = ProfileOptions(WINDOW, "q8", budget)
    with Profile.make(tiny_checkpoint, tmp_path / "made", lambda store: WINDOWS, quiet, options) as made:
        made.find_fast()
        (_, reference), *others = plans
        assert others
        for used, beside in others:
            assert used.budget_bytes == budget
            # What the reference may come to take counts, and what is kept of what it said.
            assert reference < used.held_bytes <= reference + budget // 16
            assert reference < beside <= budget
    too_small = ProfileOptions(WINDOW, "q8", 1 << 20)
    with pytest.raises(BudgetError):
        Profile.make(tiny_checkpoint, tmp_path / "none", lambda store: WINDOWS, quiet, too_small)
