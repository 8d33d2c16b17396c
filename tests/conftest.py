"""Tiny stores that many tests share, built once a session, and how examples are drawn."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from edgemoe.convert import convert
from edgemoe.quant import BitPlan

# How long an example takes is the machine's affair: under an emulator it is ten times as long.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """A Qwen3-MoE checkpoint of random weights with a tokenizer."""
    pytest.importorskip("torch")
    from helpers.tiny_models import write_checkpoint

    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "qwen3", "qwen3")


@pytest.fixture(scope="session")
def tiny_store(tiny_checkpoint, tmp_path_factory):
    """That checkpoint at 4 bits; read only."""
    path = tmp_path_factory.mktemp("store") / "tiny"
    convert(tiny_checkpoint, path, BitPlan.uniform("q4", "q8"))
    return path


@pytest.fixture
def store_copy(tiny_store, tmp_path):
    """A copy of the tiny store that a test may damage."""
    import shutil

    return shutil.copytree(tiny_store, tmp_path / "copy")
