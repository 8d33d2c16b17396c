"""What single tokens write, joined, is the text; pieces of characters are their bytes."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer as Built
from tokenizers import decoders, models, normalizers, pre_tokenizers

from edgemoe.text.token_bytes import _LETTERS
from edgemoe.text.tokenizer import Tokenizer

TEXT = "ab é漢😀 <x>b"


def byte_level():
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    built = Built(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    return built


def sentence_piece(decoder):
    tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b"]
    built = Built(models.BPE({t: i for i, t in enumerate(tokens)}, [], unk_token="<unk>", byte_fallback=True))
    built.normalizer = normalizers.Replace(" ", "▁")
    built.decoder = decoder
    return built


REPLACING = decoders.Sequence(
    [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
)
METASPACE = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="never")])


@pytest.mark.parametrize(
    "built",
    [byte_level(), sentence_piece(REPLACING), sentence_piece(METASPACE)],
    ids=["bytes", "llama", "meta"],
)
def test_tokens_joined_are_the_text(tmp_path, built):
    built.add_special_tokens(["<x>"])
    (tmp_path / "tokenizer.json").write_text(built.to_str(), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({}), encoding="utf-8")
    tokenizer = Tokenizer(tmp_path, {})
    written = [tokenizer.bytes_of(token_id) for token_id in tokenizer.encode(TEXT, adds_special=False)]
    assert b"".join(written) == TEXT.encode()
    assert b"\xf0" in written  # a piece of a character
    assert tokenizer.bytes_of(tokenizer.num_ids) == b""


def test_a_token_of_other_rules_is_as_it_decodes(tmp_path):
    built = Built(models.WordPiece({"[UNK]": 0, "un": 1, "##do": 2}, unk_token="[UNK]"))
    built.decoder = decoders.WordPiece()
    (tmp_path / "tokenizer.json").write_text(built.to_str(), encoding="utf-8")
    assert Tokenizer(tmp_path, {}).bytes_of(1) == b"un"


def test_letters_are_those_of_byte_level_vocabularies():
    assert set(_LETTERS) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(_LETTERS.values()) == list(range(256))
