"""Scoring: windows by hand, and the same number as transformers."""

from __future__ import annotations

import math

import numpy as np
import pytest

import edgemoe
from edgemoe.engine.perplexity import log_probability

torch = pytest.importorskip("torch")


def test_log_probability_by_hand():
    logits = np.log(np.array([1.0, 3.0], np.float32))
    assert log_probability(logits, 1) == pytest.approx(math.log(0.75), rel=1e-6)


def test_equals_transformers_on_one_window(tiny_checkpoint, tmp_path):
    from helpers.tiny_models import build_model

    from edgemoe.convert import convert
    from edgemoe.quant import BitPlan

    convert(tiny_checkpoint, tmp_path / "f32", BitPlan.uniform("f32", "f32"))
    tokens = np.random.default_rng(0).integers(0, 320, 60)
    with torch.no_grad():
        ids = torch.tensor(tokens[None])
        expected = float(build_model("qwen3")(ids, labels=ids).loss)
    with edgemoe.load(tmp_path / "f32", "4GiB", context=64, kv_format="f32") as model:
        score = model.perplexity(tokens.tolist(), window=60)
    assert score.num_tokens == 59
    assert score.nats_per_token == pytest.approx(expected, rel=1e-4)


def test_every_token_is_scored_once_with_enough_context(tiny_store):
    tokens = np.random.default_rng(1).integers(0, 320, 50).tolist()
    seen = []
    with edgemoe.load(tiny_store, "4GiB", context=64) as model:
        whole = model.logits(tokens[:16])
        score = model.perplexity(tokens, window=16, stride=5, progress=lambda *p: seen.append(p))
        nats = -sum(log_probability(whole[i - 1], tokens[i]) for i in range(1, 16))
        # Later windows: the tokens after those already scored, each with its window's beginning.
        scored = 16
        for start in range(5, 50, 5):
            piece = tokens[start : start + 16]
            if start + len(piece) <= scored:
                break
            logits = model.logits(piece)
            nats -= sum(
                log_probability(logits[i - start - 1], tokens[i]) for i in range(scored, start + len(piece))
            )
            scored = start + len(piece)
    assert score.num_tokens == 49
    assert score.nats_per_token * 49 == pytest.approx(nats, rel=1e-9)
    assert seen[-1] == (50, 50)
