"""A small store behind a server on loopback, with a cache of the test's own."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
from helpers.live_server import DEMO_STORE
from helpers.remote_server import NUM_TOKENS, PROMPT, SMALL, Remote, serve

import edgemoe

pytest.importorskip("obstore")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Copies and tiers of one test are not those of another; trying again does not take long."""
    from edgemoe.store.remote import files

    monkeypatch.setenv("EDGEMOE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(files, "FIRST_PAUSE_S", 1e-3)
    return tmp_path / "home" / "remote"


@pytest.fixture
def far():
    """The demo's store behind a server: ``url``, and ``server`` to ask and to break it."""
    server = Remote({"demo": DEMO_STORE})
    with serve(server) as address:
        yield SimpleNamespace(url=f"{address}/demo", server=server, address=address)


@pytest.fixture
def far_copy(tmp_path):
    """The same of a copy that a test may change: ``folder``."""
    folder = shutil.copytree(DEMO_STORE, tmp_path / "served")
    server = Remote({"demo": folder})
    with serve(server) as address:
        yield SimpleNamespace(url=f"{address}/demo", server=server, folder=folder)


@pytest.fixture(scope="session")
def local_tokens():
    """What the store on this disk answers."""
    with edgemoe.load(DEMO_STORE, **SMALL) as model:
        return model.generate(PROMPT, max_tokens=NUM_TOKENS).token_ids
