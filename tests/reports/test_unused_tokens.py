"""Entries of a vocabulary that a GGUF file calls unused: no text has them, and they write none."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("gguf")
from helpers.gguf_vocabularies import write_model
from tokenizers import pre_tokenizers

from edgemoe.checkpoint import open_checkpoint
from edgemoe.errors import StoreError
from edgemoe.text import StreamDecoder
from edgemoe.text.tokenizer import Tokenizer

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
MORE = {"<unused5>": UNUSED, "[PAD257]": UNUSED, "<|end|>": CONTROL, "<tool>": USER_DEFINED, "ab": NORMAL}


@pytest.fixture
def path(tmp_path):
    keys = {"tokenizer.ggml.bos_token_id": 258, "tokenizer.ggml.eos_token_id": 258}
    kinds = [NORMAL] * 256 + [*MORE.values()]
    tokens = [*BYTES, *MORE]
    return write_model(tmp_path / "m.gguf", tokens, pre="qwen2", merges=["a b"], kinds=kinds, keys=keys)


def tokenizer_of(path, **more):
    files = open_checkpoint(path).files()
    folder = path.with_name("files")
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes(files[name])
    if more:
        settings = json.loads(files["tokenizer_config.json"]) | more
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return Tokenizer(folder, {})


def test_unused_entries_write_nothing_as_in_llama_cpp(path):
    llama_cpp = pytest.importorskip("llama_cpp")
    ours = tokenizer_of(path)
    assert ours.unused_ids == {256, 257}
    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    try:
        for token_id in range(256, 256 + len(MORE)):
            theirs = model.detokenize([token_id]).decode()
            assert ours.decode([token_id]) == theirs, token_id
    finally:
        model.close()


def test_streams_leave_them_out_and_texts_are_read_as_before(path):
    ours = tokenizer_of(path)
    ids = [256, *ours.encode("cab", adds_special=False), 257]
    assert ids[1:-1] == [BYTES.index("c"), 260]
    stream = StreamDecoder(ours)
    assert "".join(map(stream.push, ids)) + stream.flush() == "cab" == ours.decode(ids)
    assert ours.decode_all(ids) == "<unused5>cab[PAD257]"
    text = "x<unused5>[PAD257]"  # of a user: not the entries
    assert not {256, 257} & set(ours.encode(text, adds_special=False))
    assert ours.decode(ours.encode(text, adds_special=False)) == text


@pytest.mark.parametrize("wrong", [7, ["a"], [True]])
def test_a_list_of_another_kind_is_refused(path, wrong):
    with pytest.raises(StoreError, match="unused_token_ids is no list of token ids"):
        tokenizer_of(path, unused_token_ids=wrong)
