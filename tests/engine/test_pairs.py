"""Rouge-2 and perplexity of answers, with and without an encoder, against the library and transformers."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("rouge_score")

from helpers.tiny_switch import build_switch, write_switch

import edgemoe
from edgemoe.api import Pair
from edgemoe.convert import convert
from edgemoe.engine.pairs import read_pairs
from edgemoe.errors import RequestError
from edgemoe.quant import BitPlan

PAIRS = [Pair("Once upon a time", "there was a small river"), Pair("a grey stone", "a small grey stone")]


@pytest.fixture(scope="module")
def switch_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("switch")
    convert(write_switch(folder / "checkpoint", "base"), folder / "store", BitPlan.uniform("f32", "f32"))
    return folder / "store"


def test_perplexity_of_answers_is_that_of_transformers(switch_store):
    with edgemoe.load(switch_store, "4GiB", context=64, kv_format="f32") as model:
        score = model.score_pairs(PAIRS, max_tokens=8)
        encode = model.tokenizer.encode
    reference, nats, count = build_switch("base"), 0.0, 0
    for pair in PAIRS:
        labels = torch.tensor([encode(pair.answer)])
        with torch.no_grad():
            loss = reference(input_ids=torch.tensor([encode(pair.prompt)]), labels=labels).loss.item()
        nats, count = nats + loss * labels.shape[1], count + labels.shape[1]
    assert score.num_tokens == count
    assert score.perplexity == pytest.approx(math.exp(nats / count), rel=1e-4)
    assert (score.num_pairs, score.num_cut) == (2, 0)
    assert score.interval[0] <= score.rouge2 <= score.interval[1]


class Parrot:
    """Answers with what it is told to, in the place of a stream of the engine."""

    answers: list

    def __init__(self, engine, request):
        self.generation = type("Generation", (), {"text": Parrot.answers.pop(0)})

    def __iter__(self):
        return iter(())


def test_rouge_by_hand(switch_store, monkeypatch):
    """Of the 4 word pairs of the first answer 2 are there among 3 written: F1 = 4/7; the second is right."""
    monkeypatch.setattr("edgemoe.engine.pairs.Stream", Parrot)
    Parrot.answers = ["there was a stone", "a small grey stones"]  # stems are compared
    with edgemoe.load(switch_store, "4GiB", context=64) as model:
        score = model.score_pairs(PAIRS)
    assert score.rouge2 == pytest.approx((4 / 7 + 1) / 2)


def test_long_prompts_are_cut_and_counted(switch_store, tiny_store):
    pairs = [*PAIRS, Pair("river " * 80, "stone")]
    for store in (switch_store, tiny_store):
        with edgemoe.load(store, "4GiB", context=64) as model:
            assert model.score_pairs(pairs, max_tokens=8).num_cut == 1


def test_a_decoder_answers_too(tiny_store):
    with edgemoe.load(tiny_store, "4GiB", context=64) as model:
        score = model.score_pairs(PAIRS, max_tokens=8)
        ids = [model.tokenizer.encode(text) for text in (PAIRS[0].prompt, PAIRS[0].answer)]
        logits = model.logits([*ids[0], *ids[1]])[len(ids[0]) - 1 : -1].astype(np.float64)
        one = model.score_pairs(PAIRS[:1], max_tokens=8)
    nats = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(ids[1])), ids[1]]
    assert one.nats_per_token == pytest.approx(nats.mean(), rel=1e-6)
    assert score.num_pairs == 2
    with edgemoe.load(tiny_store, "4GiB", context=8) as model, pytest.raises(RequestError, match="no room"):
        model.score_pairs(PAIRS, max_tokens=8)


def test_pairs_without_words_are_refused(tmp_path):
    path = tmp_path / "pairs.jsonl"
    for row in ({"document": "", "summary": "b"}, {"document": "a", "summary": ""}):
        path.write_text(json.dumps({"document": "a", "summary": "b"}) + "\n" + json.dumps(row))
        with pytest.raises(RequestError, match="line 2: the prompt or the answer is empty"):
            read_pairs(path, "document", "summary", "summarize: ")


def test_files_of_pairs(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"document": p.prompt, "summary": p.answer}) + "\n" for p in PAIRS))
    found = read_pairs(path, "document", "summary", "summarize: ")
    assert found[0] == Pair("summarize: Once upon a time", "there was a small river")
    with pytest.raises(RequestError, match="line 1: not a JSON object with 'dialogue' and 'summary'"):
        read_pairs(path, "dialogue", "summary")
    path.write_text("[]\n")
    with pytest.raises(RequestError, match="line 1"):
        read_pairs(path, "document", "summary")
    path.write_text("")
    with pytest.raises(RequestError, match="holds no pairs"):
        read_pairs(path, "document", "summary")


def test_what_parts_lines_elsewhere_may_stand_in_a_text(tmp_path):
    """As json.dumps(..., ensure_ascii=False) writes it; some editors put a mark of UTF-8 before it."""
    rows = [{"document": "a\u2028b\x85c", "summary": "d\u2029e"}, {"document": "f", "summary": "g"}]
    text = "\r\n\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n")
    assert read_pairs(path, "document", "summary") == [
        Pair("a\u2028b\x85c", "d\u2029e"),
        Pair("f", "g"),
    ]
