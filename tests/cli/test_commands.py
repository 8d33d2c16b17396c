"""The commands as a user meets them: in their own process, with what they print and how they exit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from edgemoe.cli.app import COMMANDS

CODE = {"done": 0, "refused": 2, "interrupted": 130, "terminated": 143}


def edgemoe(*arguments, text=None, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "edgemoe", *(a if isinstance(a, bytes) else str(a) for a in arguments)],
        capture_output=True,
        text=True,
        input=text,
        cwd=cwd,
        check=False,
        timeout=120,
    )


def refusal(*arguments, **options):
    """The one line of a command that must be refused."""
    done = edgemoe(*arguments, **options)
    assert done.returncode == CODE["refused"], done.stderr
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("edgemoe: ")]
    assert len(lines) == 1
    assert "Traceback" not in done.stderr
    return lines[0]


def test_run_streams_text_and_reports_costs(tiny_store):
    done = edgemoe("run", tiny_store, "--memory", "300MiB", "--prompt", "Once", "--max-tokens", 8)
    assert done.returncode == 0
    assert done.stdout.strip()
    assert "8 tokens" in done.stderr or "tokens/s" in done.stderr


@pytest.mark.parametrize(("context", "advice"), [(16, "; --context takes up to 128"), (128, "")])
def test_run_says_where_the_context_ends(tiny_store, context, advice):
    sampling = ["--temperature", 2, "--seed", 1, "--max-tokens", 500]
    prompt = "x" * (context - 8)  # a token each: few are left, so that no end of text comes before
    done = edgemoe("run", tiny_store, "--memory", "300MiB", "-p", prompt, "--context", context, *sampling)
    assert done.stderr.splitlines()[-1] == f"the context of {context} tokens is full{advice}"


def test_run_json_is_one_object_with_all_fields(tiny_store):
    done = edgemoe("run", tiny_store, "--memory", "300MiB", "-p", "Once upon", "--max-tokens", 5, "--json")
    record = json.loads(done.stdout)
    assert len(record["token_ids"]) == 5
    assert record["budget_bytes"] == 300 * 1024**2
    assert 0 < record["peak_rss_bytes"] <= record["budget_bytes"]
    for key in ("text", "num_prompt_tokens", "prefill_tokens_per_s", "decode_tokens_per_s", "expert_hits",
                "expert_misses", "bytes_read", "finish_reason"):  # fmt: skip
        assert key in record


def test_run_reads_the_prompt_from_stdin_and_repeats_a_seed(tiny_store):
    options = ["--memory", "300MiB", "--max-tokens", 6, "--temperature", 1.5, "--seed", 5, "--json"]
    first = edgemoe("run", tiny_store, *options, text="a river")
    again = edgemoe("run", tiny_store, *options, "--prompt", "a river")
    assert json.loads(first.stdout)["token_ids"] == json.loads(again.stdout)["token_ids"]


def test_default_budget_is_said(tiny_store):
    done = edgemoe("run", tiny_store, "-p", "a", "--max-tokens", 1)
    assert "memory budget" in done.stderr
    assert done.returncode == 0


def test_convert_inspect_eval(tiny_checkpoint, tmp_path):
    out = tmp_path / "made.store"
    dry = edgemoe("convert", tiny_checkpoint, out, "--bits", 2, "--dry-run", "--json")
    assert not out.exists()
    done = edgemoe("convert", tiny_checkpoint, out, "--bits", 2, "--dense-bits", 6, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["num_experts"] == 24
    assert json.loads(dry.stdout)["expert_bytes"] > 0

    described = json.loads(edgemoe("inspect", out, "--verify", "--memory", "300MiB", "--json").stdout)
    assert described["is_verified"]
    assert described["expert_formats"] == {"q2/q2/q2": 24}
    assert described["memory"]["is_resident"]
    assert "KV cache" in edgemoe("inspect", out, "--memory", "300MiB").stdout

    (tmp_path / "text.txt").write_text("There was a small river. " * 20)
    scored = edgemoe(
        "eval", out, "--text", tmp_path / "text.txt", "--memory", "300MiB", "--window", 64, "--json"
    )
    assert json.loads(scored.stdout)["perplexity"] > 1


def test_inspect_verify_names_the_damage(store_copy):
    path = store_copy / "experts-00000.safetensors"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 5000)
        file.write(b"damage!!")
    assert "differs from what was written" in refusal("inspect", store_copy, "--verify")


def test_chat_holds_a_conversation(tiny_store):
    lines = "Hello\n/stats\n/reset\n/nonsense\nAgain\n/exit\n"
    done = edgemoe("chat", tiny_store, "--memory", "300MiB", "--max-tokens", 5, "--seed", 1, text=lines)
    assert done.returncode == 0, done.stderr
    assert "tokens/s" in done.stderr
    assert "no command /nonsense" in done.stderr


def test_doctor_refuses_what_is_no_store_before_it_measures(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(60))
    done = edgemoe("doctor", path)
    assert done.returncode == 2
    assert "measuring" not in done.stderr, done.stderr


def test_doctor_and_demo():
    record = json.loads(edgemoe("doctor", "--json").stdout)
    assert record["storage"]["bytes_per_s"] > 0
    assert record["machine"]["isa"]
    assert record["stores"][0]["smallest_budget_bytes"] > 0
    demo = json.loads(edgemoe("demo", "--json", "--max-tokens", 12).stdout)
    assert len(demo["token_ids"]) == 12
    assert demo["peak_rss_bytes"] <= demo["budget_bytes"]
    assert demo["expert_misses"] > 0


def test_the_demo_runs_in_a_process_larger_than_plans_reckon_with():
    """As with the pages of 64 KiB that some ARM systems have: what loading adds is part of its budget too."""
    large = "ballast = b'x' * (64 << 20); import runpy; runpy.run_module('edgemoe', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", large, "demo", "--json", "--max-tokens", "2"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["expert_misses"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "{store}", "--memory", "1MiB", "-p", "x"], "the smallest budget that works is"),
        (["run", "{store}", "--memory", "much", "-p", "x"], "'much' is not a size"),
        (["run", "{store}", "-p", ""], "the prompt is empty"),
        (["run", "{tmp}/nowhere", "-p", "x"], "not a store"),
        (["run", "{checkpoint}", "-p", "x"], "run `edgemoe convert` first"),
        (["run", "{store}", "--surprise"], "surprise"),
        (["run", "{store}", "-p", "x", "--context", "100000"], "this model takes 1 to 128"),
        (["convert", "{tmp}/nowhere", "{tmp}/out"], "not found; give"),
        (["convert", "{checkpoint}", "{tmp}/out", "--bits", "5"], "5"),
        (["convert", "{checkpoint}", "{store}"], "already exists"),
        (["convert", "{store}", "{tmp}/out"], "is a store already"),
        (["convert", "{store}/config.json", "{tmp}/out"], "is one file of a checkpoint; give its folder"),
        (["convert", "{checkpoint}", "."], "no name for a new folder"),
        (["convert", "{checkpoint}", "{tmp}/out", "--text", "{store}/config.json"], "--text is what"),
        (["eval", "{store}", "--text", "{tmp}/none.txt"], "none.txt cannot be read"),
        (["eval", "{store}", "--text", "{tmp}/a", "--text", "{tmp}/b"], "can be given once"),
        (["eval", "{store}", "--text", "{tmp}/a", "--max-pairs", "3"], "are for --pairs"),
        (["eval", "{store}", "--pairs", "{tmp}/a", "--stride", "3"], "--stride is for --text"),
        (["run", "{store}", "-p", b"caf\xe9"], "the text is not UTF-8"),
        (["run", "{store}", "-p", "x", "--stop", ""], "every answer has that"),
        (["run", "{store}", "-p", "x", "--watch", "--json"], "leave out --watch or --json"),
        (["run", "{store}", "-p", "x", "--threads", "30000"], "num_threads is 30000; give 1 to"),
        (["inspect", "{store}", "--context", "64"], "give --memory too"),
        (["bench", "{store}", "-p", "0", "-n", "0"], "nothing to time"),
        (["bench", "{store}", "--cache", "nan%"], "a share such as 25%"),
        (["bench", "{store}", "--cache", "150%"], "a share such as 25%"),
        (["bench", "{store}", "--mode", "resident", "--memory", "1MiB"], "the smallest budget that works"),
    ],
)
def test_bad_input_gets_one_line(tiny_store, tiny_checkpoint, tmp_path, arguments, message):
    places = {"store": tiny_store, "checkpoint": tiny_checkpoint, "tmp": tmp_path}
    assert message in refusal(*(a.format(**places) if isinstance(a, str) else a for a in arguments))


def test_debug_shows_the_traceback(tiny_store):
    done = edgemoe("--debug", "run", tiny_store, "--memory", "1MiB", "-p", "x")
    assert "Traceback" in done.stderr


def interrupt(arguments, is_started, how=signal.SIGINT):
    """Start a command, press Ctrl-C, or send what is asked for, once it has begun; returns how it ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edgemoe", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # Tests that run in the background of a shell inherit that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    is_started(process)
    process.send_signal(how)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


@pytest.mark.parametrize(("how", "said"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_a_signal_ends_run_cleanly(tiny_store, how, said):
    arguments = ["run", tiny_store, "--memory", "300MiB", "-p", "x", "--max-tokens", 120]
    many = [*arguments, "--temperature", "2", "--seed", "1"]
    code, _, err = interrupt(many, lambda process: process.stdout.read(1), how)
    assert code == CODE[said]
    assert "Traceback" not in err
    assert said in err


def test_sigterm_ends_a_conversation_too(tiny_store):
    def until_it_waits(process):
        while "/help" not in process.stderr.readline():
            pass
        time.sleep(0.3)

    code, _, err = interrupt(["chat", tiny_store, "--memory", "300MiB"], until_it_waits, signal.SIGTERM)
    assert code == CODE["terminated"]
    assert "Traceback" not in err


def test_a_signal_in_trace_leaves_nothing(tiny_store, tmp_path):
    (tmp_path / "text.txt").write_text("Once upon a time there was a river. " * 4000)
    arguments = ["trace", tiny_store, "--text", tmp_path / "text.txt", "-o", tmp_path / "trace"]

    def until_it_traces(process):
        while not (tmp_path / "trace.partial" / "states.npy").exists() and process.poll() is None:
            time.sleep(0.005)

    code, _, _ = interrupt(
        [*arguments, "--max-tokens", 32000, "--memory", "2GiB"], until_it_traces, signal.SIGTERM
    )
    assert code == CODE["terminated"]
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_ctrl_c_in_convert_resumes(tiny_checkpoint, tmp_path):
    out = tmp_path / "out"

    def until_it_writes(process):
        while not (tmp_path / "out.partial").exists() and process.poll() is None:
            time.sleep(0.005)

    code, _, err = interrupt(["convert", tiny_checkpoint, out, "--bits", 4], until_it_writes)
    assert "Traceback" not in err
    assert code in (CODE["interrupted"], CODE["done"])
    if code == CODE["interrupted"]:
        assert not out.exists()
        assert edgemoe("convert", tiny_checkpoint, out, "--bits", 4).returncode == 0
    assert edgemoe("inspect", out, "--verify").returncode == 0


def test_a_reader_that_leaves_is_no_error(tiny_store):
    command = (
        f"{sys.executable} -m edgemoe run {tiny_store} --memory 300MiB -p x --max-tokens 100 | head -c 1"
    )
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=False, timeout=60)
    assert b"Traceback" not in done.stderr


def test_help_teaches_with_examples():
    for command in COMMANDS:
        assert f"edgemoe {command}" in edgemoe(command, "--help").stdout
    assert edgemoe("--version").stdout.startswith("edgemoe ")
