"""A store uploaded to a Hub on loopback, and run from what arrived there."""

from __future__ import annotations

import json
import shutil

import pytest
from helpers.hub_server import Hub, serve

from edgemoe.cli.main import main
from edgemoe.export import model_card
from edgemoe.quant import BitPlan
from edgemoe.store import open_store
from edgemoe.workflows.demo import demo_store

REPO = "me/demo"
# The library's own way to send bytes.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with demo_store() as path:
        return shutil.copytree(path, tmp_path_factory.mktemp("push") / "demo.store")


@pytest.fixture
def hub(monkeypatch):
    made = Hub({})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    with serve(made) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield made


def test_what_arrives_is_the_store_with_a_card(tmp_path, store, hub, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    assert main(["push", str(store), REPO]) == 2
    refused = capsys.readouterr().err.splitlines()[-1]
    assert "run `hf auth login` with a token that may write there" in refused
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    assert main(["push", str(store), REPO, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["repo"] == REPO
    arrived = tmp_path / "arrived"
    arrived.mkdir()
    for name, data in hub.pushed[REPO].items():
        (arrived / name).write_bytes(data)
    assert list(open_store(arrived).verify()) == []
    assert open_store(arrived).manifest == open_store(store).manifest
    card = hub.pushed[REPO]["README.md"].decode()
    assert card == model_card(open_store(store), REPO)
    assert "edgemoe run demo" in card
    assert "All experts have one width." in card
    assert "was not measured when it was made" in card


def test_a_card_has_what_the_plan_measured(store):
    opened = open_store(store)
    origin = {**BitPlan.uniform("q4", "q8").origin, "kind": "tolerance", "source": "Qwen3", "tolerance": 0.02}
    opened.manifest.plan.clear()
    opened.manifest.plan.update({**origin, "quality": {"perplexity_ratio": 1.013}})
    card = model_card(opened, REPO)
    assert "Made of `Qwen3`. Widths: tolerance." in card
    assert "| tolerance | 0.02 |" in card
    assert "| quality.perplexity_ratio | 1.013 |" in card


def test_a_damaged_store_is_not_published(tmp_path, store, hub, capsys):
    broken = shutil.copytree(store, tmp_path / "broken")
    entry = next(iter(open_store(broken).manifest.experts.values()))
    with (broken / entry.file).open("r+b") as file:
        file.seek(entry.offset)
        file.write(b"damage")
    assert main(["push", str(broken), REPO]) == 2
    assert "a damaged store is not published" in capsys.readouterr().err.splitlines()[-1]
    assert hub.pushed == {}
