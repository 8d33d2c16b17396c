"""trace, fit, simulate, bench and the live view, as a user meets them."""

from __future__ import annotations

import errno
import json
import os
import shutil

import numpy as np
import pytest

from edgemoe.calib.trace import read_trace
from edgemoe.cli.app import run_app
from edgemoe.cli.watch import ABSENT, MISSED, RESIDENT, fold
from edgemoe.errors import ConversionError, RequestError
from edgemoe.store.durable import lock_folder

TEXT = "Once upon a time there was a river. The old fox went to the river and sang to the moon. " * 12


@pytest.fixture(scope="module")
def traced(tiny_store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    store = shutil.copytree(tiny_store, folder / "store")
    (folder / "text.txt").write_text(TEXT)
    arguments = ["trace", store, "--text", folder / "text.txt", "-o", folder / "trace", "--memory", "4GiB"]
    assert run_app([*map(str, arguments), "--window", "128"]) == 0
    assert run_app(["fit", str(folder / "trace"), "-o", str(store)]) == 0
    return folder


def run(capsys, *arguments):
    assert run_app([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def test_fit_says_how_well_it_forecasts(traced, capsys):
    record = json.loads(run(capsys, "fit", traced / "trace", "-o", traced / "store", "--json"))
    assert set(record["recall"]) == {"table", "gate-fitted", "hybrid"}
    assert len(record["recall"]["hybrid"]["exact"]) == 3


def test_simulate_prints_a_table_json_and_a_picture(traced, capsys):
    common = ["simulate", traced / "trace", "--capacity", "30%,60%", "--max-tokens", 60]
    out = run(capsys, *common, "--policy", "lru,edgemoe", "--picture", traced / "picture.png")
    assert "belady" in out
    assert "edgemoe" in out
    assert (traced / "picture.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads(
        run(capsys, *common, "--policy", "lru", "--predictor", "all", "--store", traced / "store", "--json")
    )
    assert {run["predictor"] for run in record["runs"]} == {"none", "table", "gate", "gate-fitted", "hybrid"}


def test_simulate_knows_the_policy_forecast_of_a_fitted_store_only(traced, capsys):
    common = ["simulate", traced / "trace", "--capacity", "30%", "--max-tokens", 60, "--json"]
    without = json.loads(run(capsys, *common))
    fitted = json.loads(run(capsys, *common, "--store", traced / "store"))
    names = [{run["policy"] for run in record["runs"]} for record in (without, fitted)]
    assert names[1] - names[0] == {"forecast"}


def test_bench_compares_modes_on_every_test(traced, capsys):
    out = run(
        capsys,
        *(
            "bench",
            traced / "store",
            "--memory",
            "4GiB",
            "--cache",
            "50%",
            "--mode",
            "all",
            "-p",
            16,
            "-n",
            4,
        ),
        *("-r", 1, "--text", traced / "text.txt", "--device", "nvme", "--json"),
    )
    results = {(r["mode"], r["test"]): r for r in json.loads(out)["results"]}
    assert len(results) == 5 * 3
    assert results["resident", "tg4"]["bytes_per_token"] == 0
    assert results["on-demand", "text4"]["hit_share"] < 0.5
    one_layer_each = sum(r["bytes_per_token"] for (mode, _), r in results.items() if mode == "swap")
    assert one_layer_each > sum(r["bytes_per_token"] for (mode, _), r in results.items() if mode == "cache")


def test_the_live_view_ends_with_the_answer(traced, capsys):
    out = run(
        capsys,
        *("run", traced / "store", "--memory", "4GiB", "-p", "The old fox", "--max-tokens", 6, "--watch"),
    )
    assert "The old fox" in out


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["simulate", "TRACE", "--capacity", "0%"], "give shares"),
        (["simulate", "TRACE", "--policy", "mru"], "no policy 'mru'"),
        (["simulate", "TRACE", "--predictor", "gate"], "needs --store"),
        (["simulate", "TRACE", "--policy", "forecast"], "'forecast' needs --store"),
        (["simulate", "TRACE", "--device", "floppy"], "no device profile"),
        (["simulate", "STORE"], "is no trace"),
        (["bench", "STORE", "--mode", "fast"], "no mode 'fast'"),
        (["bench", "STORE", "--cache", "many%"], "give a size"),
        (["bench", "STORE", "-p", "99999999999"], "-p 99999999999 is beyond the context; 128 tokens are the"),
        (["bench", "STORE", "-p", "0", "-n", "128"], "-n 128 is beyond the context; 127 tokens are the most"),
    ],
)
def test_bad_requests_are_refused_in_one_line(traced, arguments, what):
    from edgemoe.errors import EdgeMoEError

    names = {"TRACE": str(traced / "trace"), "STORE": str(traced / "store")}
    with pytest.raises(EdgeMoEError, match=what):
        run_app([names.get(argument, argument) for argument in arguments])


def test_a_trace_takes_no_folder_but_its_own(traced, tmp_path, capsys):
    arguments = ["trace", traced / "store", "--text", traced / "text.txt", "-o", tmp_path / "new"]
    partial = tmp_path / "new.partial"
    partial.mkdir()
    (partial / "thesis.txt").write_text("years of work")
    with pytest.raises(RequestError, match="was not made by a trace"):
        run(capsys, *arguments)
    (partial / "thesis.txt").unlink()
    (partial / "states.npy").write_bytes(b"of a trace that was killed")
    lock = lock_folder(partial)
    with pytest.raises(ConversionError, match="another process is writing it"):
        run(capsys, *arguments, "--memory", "4GiB")
    os.close(lock)
    assert "wrote" in run(capsys, *arguments, "--memory", "4GiB", "--max-tokens", 64)
    assert {path.name for path in tmp_path.iterdir()} == {"new"}
    assert {path.suffix for path in (tmp_path / "new").iterdir()} == {".npy", ".json"}


def test_a_full_disk_ends_a_trace_in_one_line(traced, tmp_path, monkeypatch, capsys):
    def is_full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", is_full)
    with pytest.raises(RequestError, match="disk full; it takes"):
        run(
            *(capsys, "trace", traced / "store", "--text", traced / "text.txt", "-o", tmp_path / "new"),
            *("--memory", "4GiB"),
        )
    assert not list(tmp_path.iterdir())


def test_a_store_that_cannot_be_written_is_refused_before_anything_is_learnt(traced, monkeypatch, capsys):
    def is_read_only(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("edgemoe.workflows.outputs.TemporaryFile", is_read_only)
    monkeypatch.delattr("edgemoe.workflows.tracing.fit_routing")
    with pytest.raises(RequestError, match="cannot be written: Read-only file system"):
        run(capsys, "fit", traced / "trace", "-o", traced / "store")


def test_texts_of_one_name_are_told_apart(traced, tmp_path, capsys):
    texts = [tmp_path / folder / "text.txt" for folder in ("a", "b")]
    for text in texts:
        text.parent.mkdir()
        text.write_text(TEXT)
    record = json.loads(
        run(
            *(capsys, "trace", traced / "store", "--text", texts[0], "--text", texts[1], "--json"),
            *("-o", tmp_path / "new", "--memory", "4GiB", "--max-tokens", 64),
        )
    )
    assert record["sources"] == {str(text): 32 for text in texts}


def test_folding_keeps_what_matters_most():
    states = np.array([[ABSENT, RESIDENT, MISSED, ABSENT, RESIDENT]])
    assert fold(states, 3, axis=1).tolist() == [[RESIDENT, MISSED, RESIDENT]]
    assert fold(states, 5, axis=1) is states


def test_the_mark_of_utf_8_is_no_part_of_a_text(traced, tmp_path, capsys):
    """Editors on Windows begin files with it; it was read as a token, and measured."""
    plain, marked = tmp_path / "plain.txt", tmp_path / "marked.txt"
    plain.write_bytes(b"once upon a time")
    marked.write_bytes(b"\xef\xbb\xbfonce upon a time")

    def score(path):
        found = json.loads(run(capsys, "eval", traced / "store", "--text", path, "--json"))
        return found["perplexity"], found["num_tokens"]

    assert score(marked) == score(plain)


def test_a_trace_that_cannot_be_written_says_where(traced, tmp_path, capsys, monkeypatch):
    def fails(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("edgemoe.calib.trace._write_facts", fails)
    arguments = ["trace", traced / "store", "--text", traced / "text.txt", "-o", tmp_path / "new"]
    with pytest.raises(ConversionError, match=r"new\.partial: cannot be written: Read-only file system"):
        run(capsys, *arguments, "--memory", "4GiB", "--max-tokens", 64)
    assert not list(tmp_path.iterdir())


def test_a_trace_goes_where_a_link_leads(traced, tmp_path, capsys):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "disk" / "trace")
    run(capsys, "trace", traced / "store", "--text", traced / "text.txt", "-o", link, "--max-tokens", 64)
    assert link.is_symlink()
    assert [path.name for path in tmp_path.rglob("*") if path.suffix == ""] == ["disk", "link", "trace"]
    assert read_trace(link).num_tokens == 64
