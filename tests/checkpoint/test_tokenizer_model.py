"""Folders with the tokenizer that training wrote, against the libraries that wrote it."""

from __future__ import annotations

import base64
import io
import json

import pytest
from helpers.chains import write_chain
from tokenizers import pre_tokenizers

from edgemoe.checkpoint import open_checkpoint
from edgemoe.checkpoint.tokenizer_model import is_ranks
from edgemoe.errors import CheckpointError
from edgemoe.text import Tokenizer

TEXTS = ["hello world", " hello", "the cat  sat\non the mat", "漢字 ünï 🙂", "", "a</s>b", "HELLO, 12345!"]
CORPUS = [
    "the cat sat on the mat",
    "hello world, hello cat",
    "a world of mats and cats 12345",
    "ünï cödé",
] * 8


def trained(kind, **options):
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=model, model_type=kind, hard_vocab_limit=False,
        vocab_size=340 if options.get("byte_fallback") else 60, minloglevel=2, **options,
    )  # fmt: skip
    return model.getvalue(), sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def loaded(folder, tmp_path):
    """The tokenizer as a store of the folder has it."""
    source = open_checkpoint(folder)
    store = tmp_path / "store"
    store.mkdir(exist_ok=True)
    for name, data in source.files().items():
        (store / name).write_bytes(data)
    config = source.config()
    source.close()
    return Tokenizer(store, config)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("bpe", {"byte_fallback": True, "normalization_rule_name": "identity",
                 "remove_extra_whitespaces": False}),
        ("bpe", {"byte_fallback": True, "normalization_rule_name": "identity",
                 "remove_extra_whitespaces": False, "add_dummy_prefix": False}),
        ("bpe", {"byte_fallback": True, "normalization_rule_name": "nmt_nfkc"}),
        ("unigram", {"normalization_rule_name": "nmt_nfkc"}),
        ("unigram", {"byte_fallback": True, "normalization_rule_name": "identity"}),
    ],
)  # fmt: skip
def test_sentence_piece_models_give_the_tokens_of_their_library(tmp_path, kind, options):
    data, theirs = trained(kind, **options)
    folder = write_chain(tmp_path / "model")
    (folder / "tokenizer.model").write_bytes(data)
    ours = loaded(folder, tmp_path)
    for text in TEXTS:
        if "</s>" not in text:  # the library takes it for text, and transformers for the token
            assert ours.encode(text, adds_special=False) == theirs.encode(text), text
    words = theirs.encode("the cat sat")
    assert ours.decode(words) == "the cat sat"
    before, after = (1, []) if kind == "bpe" else (None, [2])
    around = ours.encode("the cat sat")
    assert around == ([] if before is None else [before]) + words + after


def test_the_settings_say_what_stands_around_a_text(tmp_path):
    data, theirs = trained("bpe", byte_fallback=True)
    folder = write_chain(tmp_path / "model")
    (folder / "tokenizer.model").write_bytes(data)
    settings = {"add_bos_token": False, "add_eos_token": True, "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    ours = loaded(folder, tmp_path)
    assert ours.encode("the cat") == [*theirs.encode("the cat"), 2]
    assert ours.stop_ids == {2}


def write_ranks(folder):
    tokens = [*(bytes([byte]) for byte in range(256)), b"he", b"ll", b"hell", b"hello", "漢".encode(), b" w"]
    lines = [base64.b64encode(token) + b" " + str(rank).encode() for rank, token in enumerate(tokens)]
    (folder / "tiktoken.model").write_bytes(b"\n".join(lines) + b"\n")
    return tokens


def test_ranks_of_tiktoken_with_special_tokens_at_their_ids(tmp_path):
    folder = write_chain(tmp_path / "model")
    tokens = write_ranks(folder)
    first = len(tokens)
    named = {str(first + 1): {"content": "[EOS]", "special": True}, str(first + 9): {"content": "<|im_end|>"}}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"added_tokens_decoder": named, "eos_token": "[EOS]"})
    )
    config = json.loads((folder / "config.json").read_text())
    with pytest.raises(CheckpointError, match="do not say how a text is split"):
        open_checkpoint(folder).files()
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "kimi_linear"}))
    ours = loaded(folder, tmp_path)
    rank = {token: i for i, token in enumerate(tokens)}
    assert ours.encode("hello w漢[EOS]<|im_end|>") == [rank[b"hello"], rank[b" w"], rank["漢".encode()],
                                                      first + 1, first + 9]  # fmt: skip
    assert ours.stop_ids == {first + 1}
    assert ours.num_ids == first + 256
    assert ours.encode("hé") == [ord("h"), 0xC3, 0xA9]


@pytest.mark.parametrize(
    "data", [b"", b"\x0a", b"\x0a\xff\xff\xff\xff\x7f", b"\xff" * 40, b"\x0a\x00", b"YQ== 1"]
)
def test_damaged_models_are_one_line(tmp_path, data):
    folder = write_chain(tmp_path / "model", model_type="kimi_linear")
    (folder / "tokenizer.model").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"tokenizer\.model: "):
        open_checkpoint(folder).files()
    assert not is_ranks(b"\x0a\x05")


def test_all_files_that_say_something_of_tokens_are_kept(tmp_path):
    folder = write_chain(tmp_path / "model")
    (folder / "added_tokens.json").write_text('{"<|x|>": 7}')
    (folder / "chat_template.json").write_text('{"chat_template": "A"}')
    assert {"added_tokens.json", "chat_template.json"} <= open_checkpoint(folder).files().keys()


def test_templates_of_a_folder_of_their_own_are_kept(tmp_path):
    from helpers.vocabularies import make_tokenizer

    folder = write_chain(tmp_path / "model")
    make_tokenizer("byte-level").save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text("plain")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("tools", "utf-8")
    ours = loaded(folder, tmp_path)
    assert tuple(ours.chat_templates()) == ("default", "tool_use")
    user = [{"role": "user", "content": "hi"}]
    assert (ours.render_chat(user), ours.render_chat(user, [{}])) == ("plain", "tools")


@pytest.mark.parametrize("named", ["Qwen2Tokenizer", "GPT2Tokenizer", None])
@pytest.mark.parametrize("adds_bos", [True, False])
def test_vocabularies_with_merges_have_the_tokens_of_transformers(tmp_path, named, adds_bos):
    transformers = pytest.importorskip("transformers")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, "he", "ll", "hell", "hello", "Ġw", "12", "<|endoftext|>", "#version", "#versions"]
    tokens += ["#version"[:length] for length in range(2, 8)]
    folder = write_chain(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "qwen3_moe"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    merges = "#version: 0.2\nh e\nl l\nhe ll\nhell o\nĠ w\n1 2\n"
    merges += "".join(f"{'#version'[:length]} {'#version'[length]}\n" for length in range(1, 8))
    merges += "#version s\n"  # passed over by the library, too
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    (folder / "added_tokens.json").write_text(json.dumps({"<|im_end|>": len(tokens)}))
    settings = {"eos_token": "<|im_end|>", "bos_token": "<|endoftext|>", "add_bos_token": adds_bos}
    settings |= {} if named is None else {"tokenizer_class": named}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    ours, theirs = loaded(folder, tmp_path), transformers.AutoTokenizer.from_pretrained(folder)
    texts = [*TEXTS, "hello<|im_end|> world 1212 DON'T\n\n x", "<|endoftext|>é", "#versions"]
    assert [ours.encode(text) for text in texts] == [theirs(text)["input_ids"] for text in texts]
    assert ours.stop_ids == {len(tokens)}


def test_a_vocabulary_with_gaps_is_refused(tmp_path):
    folder = write_chain(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "qwen3_moe"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.json").write_text(json.dumps({"a": 0, "b": 2}))
    (folder / "merges.txt").write_text("")
    with pytest.raises(CheckpointError, match="its ids are not those from 0 on"):
        open_checkpoint(folder).files()
