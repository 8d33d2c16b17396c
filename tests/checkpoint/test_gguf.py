"""GGUF files: the same tensors, logits and tokens as the folder they were made of, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch")
gguf = pytest.importorskip("gguf")
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize
from helpers.gguf_files import write_gguf
from helpers.resident import logits_of
from helpers.tiny_models import VOCAB_SIZE, write_checkpoint
from tokenizers import Tokenizer

import edgemoe
from edgemoe.checkpoint import SourceRef, open_checkpoint
from edgemoe.checkpoint.gguf.tokenizer import GgufText
from edgemoe.convert import convert, plan_as_stored
from edgemoe.errors import CheckpointError, UnsupportedModelError
from edgemoe.models import find_sources, read_spec

TOKENS = np.random.default_rng(3).integers(0, VOCAB_SIZE, 24).astype(np.int32)
VARIATIONS = ("qwen3", "qwen3-tied-bias", "qwen3-linear", "qwen3-yarn", "qwen2", "olmoe", "mixtral")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("hf"), "qwen3")


@pytest.mark.parametrize("variation", VARIATIONS)
def test_float_files_have_the_bits_of_the_folder(tmp_path, variation):
    folder = write_checkpoint(tmp_path / "hf", variation)
    if variation == "qwen3-tied-bias":  # llama.cpp's Qwen3-MoE has no biases
        folder = write_checkpoint(tmp_path / "plain", "qwen3", tie_word_embeddings=True)
    path = write_gguf(folder, tmp_path / "model.gguf")
    assert np.array_equal(logits_of(path, TOKENS), logits_of(folder, TOKENS))


SUM_TO_1, DO_NOT = {"norm_topk_prob": True}, {"norm_topk_prob": False}


@pytest.mark.parametrize(
    ("variation", "changes", "usual", "keys"),
    [
        ("mixtral-window-heads", {}, {"sliding_window": None}, {"llama.attention.sliding_window": 6}),
        ("qwen2", SUM_TO_1, DO_NOT, {}),
        ("olmoe", SUM_TO_1, DO_NOT, {}),
        ("qwen3", DO_NOT, SUM_TO_1, {}),
    ],
)
def test_keys_that_llama_cpp_passes_over_mean_what_they_say(tmp_path, variation, changes, usual, keys):
    """Windows of Mixtral, and whether weights of chosen experts sum to 1: transformers runs such models."""
    folder = write_checkpoint(tmp_path / "hf", variation, **changes)
    expected = logits_of(folder, TOKENS)
    path = write_gguf(folder, tmp_path / "model.gguf", changes=keys)
    assert np.array_equal(logits_of(path, TOKENS), expected)
    plain = write_checkpoint(tmp_path / "usual", variation, **usual)
    assert not np.array_equal(logits_of(plain, TOKENS), expected)


@pytest.mark.parametrize("form", [{"split_tensors": 7}, {"is_stacked": False}])
def test_split_files_and_single_experts_are_the_same_model(tmp_path, folder, form):
    path = write_gguf(folder, tmp_path / "model.gguf", **form)
    assert np.array_equal(logits_of(path, TOKENS), logits_of(folder, TOKENS))


@pytest.mark.parametrize("kind", [Type.BF16, Type.F16, Type.Q8_0, Type.Q5_1, Type.Q4_0, Type.MXFP4])
def test_block_types_are_what_the_library_says(tmp_path, folder, kind):
    path = write_gguf(folder, tmp_path / "model.gguf", lambda name: kind)
    whole, part = open_checkpoint(folder), open_checkpoint(path)
    for name, ref in (
        ("mlp.experts.3.down_proj", SourceRef("blk.1.ffn_down_exps.weight", 3)),
        ("self_attn.k_proj", SourceRef("blk.1.attn_k.weight")),
    ):
        values = whole.read(SourceRef(f"model.layers.1.{name}.weight"))
        expected = dequantize(quantize(values, kind), kind)
        assert np.array_equal(part.read(ref), expected)
        assert np.array_equal(part.read(ref.slice_rows(5, 9)), expected[5:9])
    part.close()


def test_rotated_rows_are_found_in_any_slice(tmp_path):
    folder = write_checkpoint(tmp_path / "hf", "mixtral")
    path = write_gguf(folder, tmp_path / "model.gguf")
    whole, part = open_checkpoint(folder), open_checkpoint(path)
    name = "layers.0.attention.q.weight"
    ours, theirs = (find_sources_of(source).dense[name] for source in (part, whole))
    assert np.array_equal(part.read(ours.slice_rows(3, 29)), whole.read(theirs)[3:29])


def find_sources_of(source):
    return find_sources(read_spec(source.config()), {n: i.shape for n, i in source.tensors().items()})


def test_every_matrix_keeps_its_width(tmp_path, folder):
    def type_of(name):
        if "down_exps" in name:
            return Type.Q8_0
        return Type.Q4_0 if "exps" in name else Type.Q5_0 if "attn_v" in name else Type.F16

    plan = plan_as_stored(write_gguf(folder, tmp_path / "model.gguf", type_of))
    assert plan.default.to_json() == ["q4_0", "q4_0", "q8"]
    assert plan.dense == "f16"
    assert plan.dense_overrides == {f"layers.{i}.attention.v.weight": "q5_0" for i in range(3)}


def test_a_converted_file_answers_and_reports_that_nothing_changed(tmp_path, folder):
    path = write_gguf(folder, tmp_path / "model.gguf", lambda name: Type.Q8_0)
    report = convert(path, tmp_path / "store", plan_as_stored(path))
    assert report.rounding["Q8_0 → q8"] == 0
    with edgemoe.load(tmp_path / "store", memory="4GiB", context=64) as model:
        assert model.tokenizer.render_chat([{"role": "user", "content": "hi"}]).startswith("<|im_start|>user")
        ours = model.logits(TOKENS.tolist())
    expected = logits_of(path, TOKENS)
    assert np.linalg.norm(ours - expected) < 0.05 * np.linalg.norm(expected)


def test_text_becomes_the_same_tokens(tmp_path, folder):
    files = open_checkpoint(write_gguf(folder, tmp_path / "model.gguf")).files()
    rebuilt = Tokenizer.from_str(files["tokenizer.json"].decode())
    original = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = "Once upon a time<|im_end|>\n  a grey\tstone: 1234, ünïcode 河 'twas!"
    assert rebuilt.encode(text).ids == original.encode(text).ids
    assert rebuilt.decode(rebuilt.encode(text).ids) == original.decode(original.encode(text).ids)
    assert json.loads(files["tokenizer_config.json"])["eos_token"] == "<|endoftext|>"
    assert json.loads(files["generation_config.json"]) == {"eos_token_id": [0, 2]}  # <|im_end|> by its text


def test_a_tokenizer_beside_the_file_is_taken_if_it_is_the_same(tmp_path, folder):
    path = write_gguf(folder, tmp_path / "model.gguf")
    beside = tmp_path / "tokenizer.json"
    beside.write_bytes((folder / "tokenizer.json").read_bytes())
    assert open_checkpoint(path).files()["tokenizer.json"] == beside.read_bytes()
    record = json.loads(beside.read_text())
    vocabulary = record["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    beside.write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="is another model's: token"):
        open_checkpoint(path).files()


def test_scores_of_a_sentence_piece_vocabulary_become_merges(tmp_path):
    """Worked out by hand: "▁low" is best made of "▁lo" and "w", bytes stand for what is not there."""
    words = ["▁", "l", "o", "w", "er", "e", "r", "▁l", "lo", "▁lo", "▁low"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *words]
    scores = [0.0] * 259 + [-20.0] * len(words)
    for rank, token in enumerate(["▁l", "▁lo", "er", "▁low", "lo"]):
        scores[tokens.index(token)] = -float(rank)
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * len(words)],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    files = dict(GgufText(metadata, tmp_path / "model.gguf").files())
    tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
    encoded = tokenizer.encode("lower low é")
    expected = ["<s>", "▁low", "er", "▁low", "▁", "<0xC3>", "<0xA9>"]
    assert [tokens[i] for i in encoded.ids] == expected
    assert tokenizer.decode(encoded.ids) == "lower low é"


def test_what_is_not_known_is_refused_by_name(tmp_path, folder):
    path = write_gguf(folder, tmp_path / "a.gguf", changes={"qwen3moe.foo.bar": 4})
    with pytest.raises(UnsupportedModelError, match=r"qwen3moe\.foo\.bar is not known"):
        open_checkpoint(path)
    path = write_gguf(folder, tmp_path / "b.gguf", changes={"qwen3moe.expert_gating_func": 2})
    with pytest.raises(UnsupportedModelError, match="expert_gating_func = 2 is not supported"):
        open_checkpoint(path)
    writer = gguf.GGUFWriter(tmp_path / "c.gguf", "bert")
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnsupportedModelError, match="architecture 'bert' is not supported"):
        open_checkpoint(tmp_path / "c.gguf")


def test_damaged_and_missing_files_are_named(tmp_path, folder):
    path = write_gguf(folder, tmp_path / "model.gguf", split_tensors=7)
    second = path.with_name(path.name.replace("-00001-", "-00002-"))
    whole = second.read_bytes()
    second.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"00002-of.*cut short.*fetch it again"):
        open_checkpoint(path)
    second.unlink()
    with pytest.raises(CheckpointError, match=r"00002-of.*not found; the model is split into"):
        open_checkpoint(path)
    (tmp_path / "no.gguf").write_bytes(b"GGML" * 20)
    with pytest.raises(CheckpointError, match=r"no\.gguf: is a GGML file of before GGUF"):
        open_checkpoint(tmp_path / "no.gguf")
    with pytest.raises(CheckpointError, match="holds GGUF files; name the one to open"):
        open_checkpoint(tmp_path)
