"""Tokenizers as keys of GGUF files: the name of how text is parted is found by what it does."""

from __future__ import annotations

import json

import pytest
from helpers.vocabularies import make_tokenizer
from tokenizers import Regex, decoders, pre_tokenizers

from edgemoe.checkpoint.gguf.build_tokenizer import BUILDERS, splitter
from edgemoe.checkpoint.gguf.splitting import candidates, find_splitting
from edgemoe.checkpoint.gguf.vocabulary import read_vocabulary
from edgemoe.errors import UnsupportedModelError
from edgemoe.export.vocabulary import vocabulary_keys
from edgemoe.text import Tokenizer

SETTINGS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def saved(tokenizer, folder, **settings):
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**SETTINGS, **settings}))
    return Tokenizer(folder, {})


@pytest.mark.parametrize("name", ["qwen2", "llama-bpe", "gpt-4o", "deepseek-v3", "olmo", "glm4", "refact"])
def test_a_rule_is_found_by_what_it_does(tmp_path, name):
    rule = dict(candidates("none"))[name]
    tokenizer = make_tokenizer("byte-level")
    tokenizer.pre_tokenizer = splitter(rule)
    tokenizer.model.ignore_merges = rule.ignores_merges
    if rule.is_composed:
        from tokenizers import normalizers

        tokenizer.normalizer = normalizers.NFC()
    keys, found = vocabulary_keys(saved(tokenizer, tmp_path / "t"), 300, "none")
    same = find_splitting(found, "none")[0]
    assert (same.patterns, same.ignores_merges) == (rule.patterns, rule.ignores_merges)
    assert same.is_composed == rule.is_composed
    assert keys["tokenizer.ggml.token_type"][:4] == [2, 3, 3, 1]
    assert keys["tokenizer.ggml.tokens"][299] == "[PAD299]"


def test_a_rule_of_nobody_is_refused(tmp_path):
    tokenizer = make_tokenizer("byte-level")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[aeiou]|\S+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    with pytest.raises(UnsupportedModelError, match=r"no rule of llama\.cpp that is known here parts text"):
        vocabulary_keys(saved(tokenizer, tmp_path / "t"), 300, "qwen3moe")


def test_sentence_pieces_get_scores_that_put_merges_in_order(tmp_path):
    pieces = ["▁", "t", "h", "e", "r", "th", "▁t", "the", "▁the", "er", "he"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    scores = [0.0] * 259 + [-9.0, -9, -9, -9, -9, -1, -3, -2, -4, -0.5, -2.5]
    metadata = {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * len(pieces)],
        "tokenizer.ggml.model": "llama",
    }
    built = BUILDERS["llama"](metadata, read_vocabulary(metadata, tmp_path / "file")).tokenizer
    keys, _ = vocabulary_keys(saved(built, tmp_path / "t"), len(tokens), "llama")
    assert keys["tokenizer.ggml.model"] == "llama"
    assert keys["tokenizer.ggml.add_bos_token"]
    assert keys["tokenizer.ggml.add_space_prefix"]
    assert keys["tokenizer.ggml.token_type"] == metadata["tokenizer.ggml.token_type"]
    order = sorted(("er", "th", "the", "he", "▁t", "▁the"), key=lambda t: -scores[tokens.index(t)])
    found = keys["tokenizer.ggml.scores"]
    assert sorted(order, key=lambda t: -found[tokens.index(t)]) == order


@pytest.mark.parametrize(("kind", "message"), [("unigram", "kind Unigram"), ("suffix", "give other tokens")])
def test_other_kinds_are_refused(tmp_path, kind, message):
    with pytest.raises(UnsupportedModelError, match=message):
        vocabulary_keys(saved(make_tokenizer(kind), tmp_path / "t"), 300, "llama")
