"""What a text takes, of models in their real sizes: by hand, and what a state really has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgemoe.models import read_spec

SHAPES = json.loads((Path(__file__).resolve().parents[2] / "docs" / "models.json").read_text())
# Layers that grow times numbers of a layer times 2 bytes.
PER_TOKEN = {
    "GLM-4.7-Flash": 47 * (512 + 64) * 2,
    "DeepSeek-V3": 61 * (512 + 64) * 2,
    "GLM-4.5-Air": 46 * 2 * 8 * 128 * 2,
    "MiniMax-M2": 62 * 2 * 8 * 128 * 2,
    "gpt-oss-20b": 12 * 2 * 8 * 64 * 2,
    "Qwen3.6-35B-A3B": 10 * 2 * 2 * 256 * 2,
    "LFM2-8B-A1B": 6 * 2 * 8 * 64 * 2,
}


@pytest.mark.parametrize("name", PER_TOKEN)
def test_bytes_of_a_token_are_the_formula(name):
    assert read_spec(SHAPES[name]).text_num_bytes()[0] == PER_TOKEN[name]


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_said_of_a_text_is_what_its_state_has(name):
    spec = read_spec(SHAPES[name])
    per_token, besides = spec.text_num_bytes()
    assert spec.new_state(64).num_bytes == spec.state_num_bytes(64)
    # Longer than every window and the rows of a call.
    assert spec.state_num_bytes(4096) == 4096 * per_token + besides
