"""A store in a repository of the Hub."""

from __future__ import annotations

import pytest
from helpers.hub_server import COMMIT, Hub, serve
from helpers.live_server import DEMO_STORE
from helpers.remote_server import PROMPT, SMALL

import edgemoe
from edgemoe.errors import StoreError
from edgemoe.store import open_store


@pytest.fixture
def hub(monkeypatch):
    from huggingface_hub import constants

    server = Hub({"maker/demo": DEMO_STORE.parent})
    with serve(server) as endpoint:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        yield server


def test_a_store_in_a_repository_gives_the_tokens_of_the_local_one(hub, local_tokens):
    with edgemoe.load("hf://maker/demo@main/demo_store", **SMALL) as model:
        assert model.generate(PROMPT, max_tokens=2).token_ids == local_tokens[:2]
    assert hub.tokens == {"hf_secret"}


def test_what_the_hub_has_not_is_said(hub):
    for text, line in {
        "hf://maker/absent": "there is no such repository, or it is private",
        f"hf://maker/demo@{'0' * 40}": "the repository has no such revision",
        f"hf://maker/demo@{COMMIT}/elsewhere": r"not a store, there is no edgemoe\.json",
    }.items():
        with pytest.raises(StoreError, match=line):
            open_store(text)
    hub.gated.add("maker/demo")
    with pytest.raises(StoreError, match="gated: accept its licence"):
        open_store("hf://maker/demo")
