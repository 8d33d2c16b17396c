"""Long texts are tokenised in pieces: the same tokens, memory for a piece, and no work on what cannot fit."""

from __future__ import annotations

import random

import pytest
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

import edgemoe
from edgemoe.engine.machine import resident_bytes
from edgemoe.errors import RequestError
from edgemoe.text import Tokenizer
from edgemoe.text.pieces import PIECE_CHARACTERS
from edgemoe.units import MIB
from edgemoe.workflows.demo import demo_store

WORDS = (
    *("the", "river", "was", "small", "and", "grey,", "'quoth", "he;", "12,345", "stones", "-", "über"),
    *("alles", "✓", "naïve\t", "", "end."),
)
LETTERS = random.Random(4)
LONG = "\n".join(" ".join(LETTERS.choice(WORDS) for _ in range(LETTERS.randrange(20))) for _ in range(6000))


def byte_level(library):
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    return trainers.BpeTrainer(vocab_size=600, special_tokens=["<s>", "</s>"], show_progress=False)


def sentence_piece(library):
    library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    library.decoder = decoders.Replace("▁", " ")
    return trainers.BpeTrainer(
        vocab_size=200, special_tokens=["<s>", "</s>"], show_progress=False, max_token_length=8
    )


def metaspace(library):
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.decoder = decoders.Metaspace()
    return trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>", "</s>"], show_progress=False)


@pytest.fixture(params=[byte_level, metaspace, sentence_piece], ids=lambda kind: kind.__name__)
def folder(request, tmp_path):
    library = Library(models.BPE(unk_token="<s>"))
    trainer = request.param(library)
    library.train_from_iterator([LONG[:3000]], trainer)
    library.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    library.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


@pytest.mark.parametrize("adds_special", [True, False])
def test_a_long_text_has_the_tokens_of_the_whole(folder, adds_special):
    assert len(LONG) > 6 * PIECE_CHARACTERS
    expected = Library.from_file(str(folder / "tokenizer.json")).encode(LONG, add_special_tokens=adds_special)
    assert Tokenizer(folder, {}).encode(LONG, adds_special=adds_special) == expected.ids


def watched(tokenizer, monkeypatch):
    lengths = []
    encode = tokenizer._encode

    def watches(text, adds_special=False):
        lengths.append(len(text))
        return encode(text, adds_special)

    monkeypatch.setattr(tokenizer, "_encode", watches)
    return lengths


def test_no_piece_is_long(monkeypatch):
    with demo_store() as path:
        tokenizer = Tokenizer(path, {})
    whole = tokenizer._encode(LONG, True)
    lengths = watched(tokenizer, monkeypatch)
    assert tokenizer.encode(LONG) == whole
    assert max(lengths) <= 2 * PIECE_CHARACTERS
    assert len(lengths) > 6


# What has no lines, no spaces, or neither: files of one line, other writing systems, binary ones.
UNCUT = {
    "one line": LONG.replace("\n", " "),
    "old line ends": LONG.replace("\n", "\r"),
    "code": "\n".join(f"    x = f({i})" for i in range(12_000)),
    "records": '{"a":1,"b":[2,3]},' * 10_000,
    "no space": "".join(LETTERS.choice("的一是在不了有和人这，") for _ in range(150_000)),
    "one letter": "0" * 150_000,
    "spaces": " " * 150_000,
    "no mark": "".join(LETTERS.choice("的一是在不了有和人这") for _ in range(70_000)),
    "bases": "".join(LETTERS.choice("acgt") for _ in range(70_000)),
}


@pytest.mark.parametrize("name", UNCUT)
def test_long_texts_without_lines(folder, monkeypatch, name):
    text, tokenizer = UNCUT[name], Tokenizer(folder, {})
    whole = tokenizer._encode(text, True)
    lengths = watched(tokenizer, monkeypatch)
    assert tokenizer.encode(text) == whole
    assert max(lengths) < len(text)
    assert tokenizer.encode_beginning(text, 200) == whole[:200]
    lengths.clear()
    found = tokenizer.encode(text, most=100)
    if len(found) > 100:
        assert max(lengths) <= 2 * PIECE_CHARACTERS
        assert sum(lengths) < len(text) or name == "one letter"
    else:  # a run of one unknown letter is one token
        assert found == whole


def test_what_is_nowhere_cut_is_whole_up_to_a_size(folder, monkeypatch):
    tokenizer = Tokenizer(folder, {})
    monkeypatch.setattr(tokenizer, "_encode", lambda text, adds_special=False: [len(text)])
    assert tokenizer.encode("a" * 70_000, adds_special=False) == [70_000]
    with pytest.raises(RequestError, match=r"300000 characters in a row .* break them into lines"):
        tokenizer.encode("a" * 300_000, adds_special=False)


def test_long_conversations_are_not_tokenised_to_their_end(monkeypatch):
    with demo_store() as path, edgemoe.load(path, resident_bytes() + 150 * MIB, context=64) as model:
        lengths = watched(model.tokenizer, monkeypatch)
        with pytest.raises(edgemoe.ContextError, match="more than 64 tokens do not fit"):
            model.stream_chat([{"role": "user", "content": UNCUT["spaces"]}])
        assert sum(lengths) < PIECE_CHARACTERS * 4


def test_what_cannot_fit_is_not_tokenised_to_its_end(monkeypatch):
    with demo_store() as path, edgemoe.load(path, resident_bytes() + 150 * MIB, context=64) as model:
        lengths = watched(model.tokenizer, monkeypatch)
        with pytest.raises(RequestError, match="more than 64 tokens do not fit the context of 64"):
            model.stream(LONG)
        assert sum(lengths) < len(LONG) / 2
