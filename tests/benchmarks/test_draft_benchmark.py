"""The benchmark of drafts runs and says what it is asked for; its speeds are not looked at."""

from __future__ import annotations

import json

import draft
import pytest
from draft_parts.told import Prompter

from edgemoe.engine.drafting.model_drafter import likeliest
from edgemoe.workflows.demo import demo_store

SIZES = ["--length", "24", "--turns", "2"]


def run(capsys, *arguments):
    draft.main([str(argument) for argument in arguments])
    return json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]


def test_every_kind_of_text_is_followed(capsys):
    with demo_store() as store:
        rows = run(capsys, store, "--share", 1, 0.5, "--kind", "copy", "own", "--drafted", 2, *SIZES)
    assert [(row["share"], row["text"]) for row in rows] == [
        (1.0, "copy"), (1.0, "own"), (0.5, "copy"), (0.5, "own"),
    ]  # fmt: skip
    assert all(row["is_same"] and row["speedup"] > 0 for row in rows)
    assert all(row["num_accepted"] == row["num_drafted"] > 0 for row in rows if row["text"] == "copy")
    assert all(row["bytes_per_token"] == [0, 0] for row in rows if row["share"] == 1)


@pytest.mark.parametrize(("chance", "num_accepted"), [(0.0, 0), (1.0, 2 * 24 * 3 / 4)])
def test_a_store_is_right_as_often_as_it_is_told_to_be(capsys, chance, num_accepted):
    """All tokens but the one before each draft, if they are right; the last draft may go beyond the text."""
    with demo_store() as store:
        told = ["--draft", store, "--accepted", chance, "--drafted", 3]
        (row,) = run(capsys, store, "--share", 1, *told, *SIZES)
    assert row["is_same"]
    assert row["text"] == f"{chance:.0%} right"
    assert row["num_accepted"] == pytest.approx(num_accepted, abs=2)


def test_what_is_said_is_as_sure_as_it_is_often_right():
    text = list(range(100, 1100))
    prompter = Prompter(vocab_size=4096, chance=0.6)
    prompter.follow(text, seed=1)
    said = [likeliest(prompter.logits(place)) for place in range(len(text))]
    assert sum(token == right for (token, _), right in zip(said, text, strict=True)) == pytest.approx(
        600, abs=60
    )
    assert all(sureness == pytest.approx(0.6, rel=1e-3) for _, sureness in said)
