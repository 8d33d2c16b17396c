"""One server for many tests, and the official clients on it."""

from __future__ import annotations

import pytest

for _package in ("starlette", "uvicorn", "openai", "anthropic", "llguidance"):
    pytest.importorskip(_package)

from helpers.live_server import live_server


@pytest.fixture(scope="session")
def server():
    """The demo store under the name "demo"."""
    with live_server(aliases=("demo",)) as live:
        yield live


@pytest.fixture
def openai_client(server):
    """OpenAI's client; errors are not tried again."""
    import openai

    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def anthropic_client(server):
    """Anthropic's client; errors are not tried again."""
    import anthropic

    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def http(server):
    """Plain HTTP."""
    import httpx

    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client
