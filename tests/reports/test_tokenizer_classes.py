"""Folders whose tokenizer_config.json names a class with rules of its own: ids and texts of transformers.

Vocabularies, flags of tokens and settings are drawn at random, as folders of many writers have them.
"""

from __future__ import annotations

import json
import random

import pytest

transformers = pytest.importorskip("transformers")
from helpers.vocabularies import make_tokenizer

from edgemoe.errors import StoreError
from edgemoe.text import Tokenizer, try_text_files

BYTE_LEVEL, OF_CHARACTERS = ("byte-level",), ("llama", "gemma", "metaspace")
# Classes, the vocabularies that they are for, and families whose folders name them.
CLASSES = {
    "LlamaTokenizer": (OF_CHARACTERS, ("deepseek_v2", "gpt_oss", "mixtral", "qwen3_moe")),
    "LlamaTokenizerFast": ((*OF_CHARACTERS, *BYTE_LEVEL), ("deepseek_v3", "dots1")),
    "CodeLlamaTokenizer": (OF_CHARACTERS, ("deepseek_v2", "gpt_oss", "mixtral", "qwen3_moe")),
    "CohereTokenizerFast": (BYTE_LEVEL, ("gpt_oss", "qwen3_moe", "granitemoe")),
    "GemmaTokenizer": (OF_CHARACTERS, ("gemma4", "gpt_oss")),
    "GPT2Tokenizer": (BYTE_LEVEL, ("granitemoe", "minimax_m2", "lfm2_moe", "olmoe")),
    "GPTNeoXTokenizerFast": (BYTE_LEVEL, ("olmoe", "dots1")),
    "Qwen2Tokenizer": (BYTE_LEVEL, ("qwen2_moe", "qwen3_moe", "dots1", "qwen3_5_moe", "glm4_moe")),
    "Qwen2TokenizerFast": (BYTE_LEVEL, ("qwen3_next", "phimoe")),
    "Qwen3_5Tokenizer": (BYTE_LEVEL, ("qwen3_5_moe",)),
    "T5Tokenizer": (("unigram",), ("switch_transformers", "dots1")),
    "PreTrainedTokenizerFast": (
        (*BYTE_LEVEL, *OF_CHARACTERS, "unigram", "word-piece"),
        ("qwen3_moe", "olmoe"),
    ),
    "TokenizersBackend": ((*BYTE_LEVEL, "suffix"), ("qwen3_moe", "qwen3_5_moe")),
    "SomeoneElsesTokenizer": (BYTE_LEVEL, ("qwen3_moe", "gpt_oss")),
}
NAMED = {"bos_token": "<s>", "eos_token": "<|im_end|>", "unk_token": "<unk>", "pad_token": "<pad>"}
ADDED = ("<tool>", "<|im_end|>", "<|endoftext|>", "<pad>", "<extra_id_0>")
TEXTS = (
    "The quick <tool> brown<|im_end|>  fox</s> jumps",
    " lead",
    "a  b\n\nc 123 4567 don't DON'T É é ﬁ <TOOL>",
    "",
    "<s>a</s>b <unk> <|endoftext|>x<pad> <extra_id_0>",
    "▁a ▁▁b <tool>  <tool>",
    "日本語 😀 \t x",
)


def _token(draw, content):
    return {
        "content": content,
        "single_word": draw.random() < 0.15,
        "lstrip": draw.random() < 0.2,
        "rstrip": draw.random() < 0.2,
        "normalized": draw.random() < 0.5,
        "special": draw.random() < 0.7,
    }


def _plain(content):
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"content": content, "special": True, **flags}


def _added(draw, size):
    """Added tokens by id: those of the vocabulary and some behind it."""
    some = draw.sample(ADDED, draw.randint(0, 4))
    tokens = {**dict(enumerate(("<unk>", "<s>", "</s>"))), **dict(enumerate(some, size))}
    return {i: draw.choice([_plain, lambda text: _token(draw, text)])(text) for i, text in tokens.items()}


def _settings(draw, name, added):
    settings = {"tokenizer_class": name}
    for key, text in NAMED.items():
        if draw.random() < 0.7:
            settings[key] = draw.choice([text, None, {"__type": "AddedToken", **_token(draw, text)}])
    for key, values in {
        "add_prefix_space": (True, False, None),
        "legacy": (True, False, None),
        "add_bos_token": (True, False),
        "add_eos_token": (True, False),
        "clean_up_tokenization_spaces": (True, False),
        "additional_special_tokens": ([], ["<tool>"]),
        "extra_special_tokens": ([], ["<|im_end|>", "<tool>"]),
    }.items():
        if draw.random() < 0.35:
            settings[key] = draw.choice(values)
    if draw.random() < 0.5:
        settings["added_tokens_decoder"] = {
            str(i): token if draw.random() < 0.7 else _token(draw, token["content"])
            for i, token in added.items()
        }
    return settings


def _write(folder, draw, name):
    kinds, families = CLASSES[name]
    record = json.loads(make_tokenizer(draw.choice(kinds)).to_str())
    added = _added(draw, len(record["model"]["vocab"]))
    record["added_tokens"] = [{"id": i, **token} for i, token in added.items()]
    if draw.random() < 0.3:
        record["normalizer"] = draw.choice([{"type": "Lowercase"}, {"type": "NFC"}, None])
    if draw.random() < 0.3 and record["model"]["type"] == "BPE":
        record["model"]["ignore_merges"] = True
    config = {"model_type": draw.choice(families)}
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(record), "utf-8")
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    settings = _settings(draw, name, added)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    if draw.random() < 0.2:
        special = {"eos_token": "</s>", "pad_token": "<pad>", "additional_special_tokens": ["<tool>"]}
        (folder / "special_tokens_map.json").write_text(json.dumps(special), "utf-8")
    return config


@pytest.mark.parametrize("name", CLASSES)
def test_ids_and_texts_are_those_of_transformers(tmp_path, name):
    draw = random.Random(name)
    num_compared = 0
    for number in range(24):
        folder = tmp_path / str(number)
        config = _write(folder, draw, name)
        try:
            other = transformers.AutoTokenizer.from_pretrained(folder)
            expected = [other(text)["input_ids"] for text in TEXTS]
        except Exception:  # a drawn folder may be one that it cannot use
            continue
        ours = Tokenizer(folder, config)
        for text, ids in zip(TEXTS, expected, strict=True):
            assert ours.encode(text) == ids, (number, text)
            assert ours.decode_all(ids) == other.decode(ids), (number, text)
        assert ours.special_tokens == {k: str(v) for k, v in other.special_tokens_map.items()}, number
        assert other.eos_token_id is None or ours.eos_id == other.eos_token_id, number
        num_compared += 1
    assert num_compared > 12


def test_rules_of_a_class_that_differ_are_told(tmp_path):
    """tokenizer.json takes digits together, and Qwen's class each for itself."""
    record = json.loads(make_tokenizer("byte-level").to_str())
    record["model"]["vocab"] |= {"12": len(record["model"]["vocab"])}
    record["model"]["merges"] = [["1", "2"]]
    settings = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "</s>"}
    config = {"model_type": "qwen3_moe"}
    files = {"tokenizer.json": json.dumps(record).encode()}
    for name, is_told in (("Qwen2Tokenizer", True), ("GPT2Tokenizer", False), ("TokenizersBackend", False)):
        files["tokenizer_config.json"] = json.dumps({**settings, "tokenizer_class": name}).encode()
        notes = try_text_files(files, config, 300)
        assert any("by the rules of the class" in note for note in notes) == is_told


@pytest.mark.parametrize("count", [10**12, -1, "many", None])
def test_numbers_of_sentinels_that_cannot_be_are_refused(tmp_path, count):
    (tmp_path / "tokenizer.json").write_text(make_tokenizer("unigram").to_str(), "utf-8")
    settings = {"tokenizer_class": "T5Tokenizer", "extra_ids": count}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    with pytest.raises(StoreError, match=r"extra_ids is .* no number of tokens"):
        Tokenizer(tmp_path, {"model_type": "switch_transformers"})
