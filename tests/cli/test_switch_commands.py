"""A model with an encoder at the command line: every command runs it or says why not."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip("torch")

from helpers.tiny_switch import write_switch

TEXT = "Once upon a time there was a small river and a grey stone. " * 30
PROMPT = "summarize: Once upon a time there was a small river."


def edgemoe(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "edgemoe", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def answer(*arguments):
    done = edgemoe(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("switch")
    checkpoint = write_switch(folder / "checkpoint", "all-sparse")
    (folder / "text.txt").write_text(TEXT)
    (folder / "pairs.jsonl").write_text(json.dumps({"document": TEXT[:60], "summary": "a small river"}))
    answer("convert", checkpoint, folder / "store", "--bits", 4)
    return folder / "store"


def test_run_inspect_doctor_bench(store):
    options = ["--max-tokens", 6, "--temperature", 3, "--seed", 1]
    written = answer("run", store, "--prompt", PROMPT, "--memory", "300MiB", *options)
    assert 1 <= len(written["token_ids"]) <= 6
    assert written["num_prompt_tokens"] > 10
    assert written["peak_rss_bytes"] < 300 << 20
    inspected = answer("inspect", store, "--memory", "300MiB")
    assert inspected["num_layers"] == 8
    assert inspected["expert_formats"] == {"q4/q4": 64}
    assert inspected["memory"]["items"]["kv_cache"] > 0
    assert answer("doctor", store)["stores"][0]["fits"]
    results = answer(
        "bench", store, "--mode", "all", "--cache", "25%", "-p", 8, "-n", 8, "-r", 1,
        "--text", store.parent / "text.txt",
    )["results"]  # fmt: skip
    assert len(results) == 15
    (store.parent / "short.txt").write_text("O")
    done = edgemoe("bench", store, "-p", 0, "-n", 4, "--text", store.parent / "short.txt")
    assert "a text of at least two tokens" in done.stderr
    assert all(result["tokens_per_s"][0] > 0 for result in results)


def test_trace_fit_simulate(store, tmp_path):
    trace, options = tmp_path / "trace", ["--max-tokens", 6, "--temperature", 3, "--seed", 1]
    before = answer("run", store, "--prompt", PROMPT, *options)
    traced = answer("trace", store, "--text", store.parent / "text.txt", "-o", trace, "--window", 64)
    assert traced["num_layers"] == 8
    fitted = answer("fit", trace, "-o", store)
    assert len(fitted["recall"]["hybrid"]["exact"]) == 4, "the decoder's layers alone"
    runs = answer("simulate", trace, "--store", store, "--predictor", "all", "--capacity", "25%")["runs"]
    assert {run["predictor"] for run in runs} == {"none", "table", "gate", "gate-fitted", "hybrid"}
    again = answer("run", store, "--prompt", PROMPT, *options)
    assert again["token_ids"] == before["token_ids"], "what is read ahead never changes a token"


def test_eval(store):
    text = store.parent / "text.txt"
    assert answer("eval", store, "--text", text, "--window", 64)["perplexity"] > 1
    pytest.importorskip("rouge_score")
    scored = answer("eval", store, "--pairs", store.parent / "pairs.jsonl", "--max-tokens", 8)
    assert scored["num_pairs"] == 1
    assert 0 <= scored["rouge2"] <= 1
    for wrong in ([], ["--text", text, "--pairs", text]):
        done = edgemoe("eval", store, *wrong)
        assert done.returncode == 2
        assert "give either --text or --pairs" in done.stderr
    done = edgemoe("eval", store, "--pairs", store.parent / "pairs.jsonl", "--keys", "summary")
    assert "give two, such as document,summary" in done.stderr


def test_widths_are_planned(store, tmp_path):
    plan = answer(
        "plan", store.parent / "checkpoint", "--text", store.parent / "text.txt", "--bits", 5.5,
        "--window", 32, "-o", tmp_path / "plan.json",
    )  # fmt: skip
    assert plan["bits_per_weight"] <= 5.5
    done = edgemoe(
        "plan", store.parent / "checkpoint", "--text", store.parent / "text.txt", "--bits", 5.5,
        "--method", "exact", "--window", 32, "-o", tmp_path / "exact.json",
    )  # fmt: skip
    assert done.returncode == 2
    assert "use --method knapsack" in done.stderr


def test_a_store_of_chosen_widths_runs(store, tmp_path):
    """Two-matrix experts are rounded for their inputs, widths of up and down apart."""
    (tmp_path / "long.txt").write_text(TEXT * 12)
    answer(
        "convert", store.parent / "checkpoint", tmp_path / "mixed", "--size", "1200KiB",
        "--text", tmp_path / "long.txt",
    )  # fmt: skip
    formats = answer("inspect", tmp_path / "mixed")["expert_formats"]
    assert all(name.count("/") == 1 for name in formats)
    assert len(formats) > 1
    assert answer("run", tmp_path / "mixed", "--prompt", PROMPT, "--max-tokens", 4)["token_ids"]
