"""GGUF files as public bug reports have them: vocabularies, missing keys, old, foreign and damaged files."""

from __future__ import annotations

import json
import struct
import time
import tracemalloc

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")
from helpers.gguf_vocabularies import EXPERTS, INNER, WIDTH, llama_cpp_tokens, make_tensors, write_model
from helpers.resident import load_resident
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

import edgemoe.checkpoint
from edgemoe.checkpoint import open_checkpoint
from edgemoe.checkpoint.gguf import splitting
from edgemoe.convert import convert, plan_as_stored
from edgemoe.errors import CheckpointError, UnsupportedModelError
from edgemoe.models import read_spec

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
IDS = np.arange(1, 9, dtype=np.int32)
TEXTS = [
    "Hello  world, it's DON'T we've\n\n  x = 12345678 + 3.14;\t\tfoo()  \n",
    "漢字と仮名 123 사랑해요 тест naïve école",
    "a...b!!! ??\r\n\r\n end   ",
    " leading 'Twas I'LL 1 22 333 4444 55555",
    "if(x==1){\n    return 'a';\n}\n",
    "emoji 🙂🙃 and ümlaut ½ ² Ⅷ, don’t “quote” — dash\n\n\ny\n \n z",
]
# llama.cpp's engine of patterns does not tell capitals from small letters here; the models' own does.
WITHOUT_CASE = {"youtu", "tiny_aya", "cohere2moe", "kimi-k2"}


def logits_of(path):
    source = open_checkpoint(path)
    spec, decoder = load_resident(source)
    source.close()
    return decoder.head(decoder.forward(IDS, spec.new_state(len(IDS), "f32")))


def rebuilt(path):
    return Tokenizer.from_str(open_checkpoint(path).files()["tokenizer.json"].decode())


@pytest.fixture(scope="module")
def joined_vocabulary():
    """Tokens and merges that reach over words, so that only splitting keeps words apart."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=BYTES, min_frequency=1, show_progress=False
    )
    pieces = ["".join(text[i : i + 7]) for text in TEXTS for i in range(len(text))]
    tokenizer.train_from_iterator(TEXTS * 3 + pieces, trainer)
    record = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(record["vocab"], key=record["vocab"].get)
    return [*tokens, "<|bos|>", "<|im_end|>"], [" ".join(merge) for merge in record["merges"]]


@pytest.mark.parametrize("name", sorted(set(splitting.names()) - WITHOUT_CASE))
def test_every_way_to_split_gives_the_tokens_of_llama_cpp(tmp_path, joined_vocabulary, name):
    pytest.importorskip("llama_cpp")
    tokens, merges = joined_vocabulary
    keys = {"tokenizer.ggml.bos_token_id": len(tokens) - 2, "tokenizer.ggml.eos_token_id": len(tokens) - 1}
    kinds = [1] * (len(tokens) - 2) + [3, 3]
    path = write_model(tmp_path / "m.gguf", tokens, pre=name, merges=merges, kinds=kinds, keys=keys)
    ours = rebuilt(path)
    assert [ours.encode(text).ids for text in TEXTS] == llama_cpp_tokens(path, TEXTS)


@pytest.mark.parametrize("says", [None, True, False])
@pytest.mark.parametrize("pre", ["llama-bpe", "qwen2", "tekken", "gpt-4o"])
def test_the_file_has_the_last_word_on_bos(tmp_path, pre, says):
    pytest.importorskip("llama_cpp")
    tokens = [*BYTES, "<|bos|>"]
    keys = {"tokenizer.ggml.bos_token_id": 256, "tokenizer.ggml.eos_token_id": 256}
    keys |= {} if says is None else {"tokenizer.ggml.add_bos_token": says}
    kinds = [1] * 256 + [3]
    path = write_model(tmp_path / "m.gguf", tokens, pre=pre, merges=["a b"], kinds=kinds, keys=keys)
    with pytest.raises(CheckpointError, match="the merge 'a b' needs tokens that its vocabulary lacks"):
        rebuilt(path)
    path = write_model(tmp_path / "n.gguf", [*tokens, "ab"], pre=pre, merges=["a b"], keys=keys)
    assert rebuilt(path).encode("ab").ids == llama_cpp_tokens(path, ["ab"])[0]


def sentence_piece():
    words = ["▁", *"helowrdHé", "▁h", "el", "lo", "▁hel", "▁hello", "▁w", "or", "ld", "▁wor", "▁world", "ell"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *words, "<|tool|>", "<|end|>"]
    scores = [0.0] * 259 + [-float(i) for i in range(len(words))] + [0.0, 0.0]
    return tokens, [2, 3, 3, *[6] * 256, *[1] * len(words), 4, 3], scores


@pytest.mark.parametrize(
    "keys", [{}, {"add_space_prefix": False}, {"add_bos_token": False}, {"add_eos_token": True}]
)
def test_sentence_piece_tokens_are_those_of_llama_cpp(tmp_path, keys):
    pytest.importorskip("llama_cpp")
    tokens, kinds, scores = sentence_piece()
    keys = {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
    path = write_model(
        tmp_path / "m.gguf", tokens, model="llama", merges=None, kinds=kinds, scores=scores, keys=keys
    )
    texts = ["hello world", " hello", "漢 hello  world\n", "a<|tool|> hello<|end|>world", "Héé"]
    ours = rebuilt(path)
    assert [ours.encode(text).ids for text in texts] == llama_cpp_tokens(path, texts)
    assert ours.decode(ours.encode("hello 漢 world").ids) == "hello 漢 world"


def test_ids_that_a_sentence_piece_file_does_not_say(tmp_path):
    tokens, kinds, scores = sentence_piece()
    path = write_model(tmp_path / "m.gguf", tokens, model="llama", merges=None, kinds=kinds, scores=scores)
    settings = json.loads(open_checkpoint(path).files()["tokenizer_config.json"])
    assert (settings["bos_token"], settings["eos_token"], settings["unk_token"]) == ("<s>", "</s>", "<unk>")


ENDS = {
    "im_end": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "llama 3": ["<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|start_header_id|>"],
    "gemma": ["<eos>", "<end_of_turn>", "<start_of_turn>"],
    "gpt-oss": ["<|return|>", "<|call|>", "<|end|>", "<|channel|>", "<|message|>"],
    "phi": ["<|endoftext|>", "<|end|>", "<|user|>"],
    "deepseek": ["<｜end▁of▁sentence｜>", "<｜User｜>"],
    "solar": ["<|flush|>", "<|calls|>", "<|end|>"],
    "gemma 4": ["<turn|>", "<|tool_response>", "</s>"],
    "qwen coder": ["<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|fim_prefix|>"],
    "none": ["<s>", "<pad>"],
}


@pytest.mark.parametrize("kind", [1, 3])
@pytest.mark.parametrize("name", ENDS)
def test_end_tokens_are_found_by_their_text(tmp_path, name, kind):
    llama_cpp = pytest.importorskip("llama_cpp")
    tokens = [*BYTES, *ENDS[name]]
    kinds = [1] * 256 + [kind] * len(ENDS[name])
    keys = {"tokenizer.ggml.eos_token_id": 256, "tokenizer.ggml.bos_token_id": 256}
    path = write_model(
        tmp_path / "m.gguf", [*tokens, "ab"], pre="qwen2", merges=["a b"], kinds=[*kinds, 1], keys=keys
    )
    files = open_checkpoint(path).files()
    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    vocabulary = llama_cpp.llama_model_get_vocab(model._model.model)
    expected = [i for i in range(len(tokens)) if llama_cpp.llama_vocab_is_eog(vocabulary, i)]
    model.close()
    assert json.loads(files["generation_config.json"])["eos_token_id"] == expected


@pytest.mark.parametrize(("pre", "said"), [(None, "does not say"), ("my-own", "the way of 'my-own'")])
def test_a_way_to_split_that_is_not_known_is_told(tmp_path, pre, said):
    tokens = [*BYTES, "<|bos|>"]
    keys = {"tokenizer.ggml.bos_token_id": 256}
    path = write_model(tmp_path / "m.gguf", tokens, architecture="qwen3moe", pre=pre, merges=None, keys=keys,
                       kinds=[1] * 256 + [3])  # fmt: skip
    source = open_checkpoint(path)
    assert said in source.notes()[0]
    assert "as qwen3moe usually does (qwen2)" in source.notes()[0]
    assert rebuilt(path).encode("a").ids == [tokens.index("a")]


def test_named_templates_and_advice_for_sampling_are_kept(tmp_path):
    keys = {
        "tokenizer.chat_template": "{{ plain }}", "tokenizer.chat_template.tool_use": "{{ tools }}",
        "tokenizer.chat_templates": ["tool_use"], "general.sampling.temp": 0.5, "general.sampling.top_k": 20,
    }  # fmt: skip
    path = write_model(tmp_path / "m.gguf", BYTES, pre="qwen2", merges=None, keys=keys)
    files = open_checkpoint(path).files()
    assert json.loads(files["tokenizer_config.json"])["chat_template"] == [
        {"name": "default", "template": "{{ plain }}"},
        {"name": "tool_use", "template": "{{ tools }}"},
    ]
    assert json.loads(files["generation_config.json"]) == {"temperature": 0.5, "do_sample": True, "top_k": 20}


def test_the_name_of_a_template_is_none(tmp_path):
    """llama.cpp knows some by their names; rendered, the name would be all that a model reads."""
    keys = {"tokenizer.chat_template": "chatml"}
    path = write_model(tmp_path / "m.gguf", BYTES, pre="qwen2", merges=None, keys=keys)
    source = open_checkpoint(path)
    assert "chat_template.jinja" not in source.files()
    assert any("'chatml', a name that other programs know" in note for note in source.notes())


def test_a_template_that_leaves_out_the_user_is_told(tmp_path):
    keys = {"tokenizer.chat_template": "{% for m in messages %}<{{ m.role }}>{% endfor %}"}
    path = write_model(tmp_path / "m.gguf", BYTES, pre="qwen2", merges=None, keys=keys)
    notes = convert(path, tmp_path / "store", plan_as_stored(open_checkpoint(path))).notes
    assert any("leaves out what a user writes" in note for note in notes)


@pytest.mark.parametrize("template", ["", " \n", 5])
def test_an_empty_template_is_none(tmp_path, template):
    keys = {"tokenizer.chat_template": template}
    path = write_model(tmp_path / "m.gguf", BYTES, pre="qwen2", merges=None, keys=keys)
    files = open_checkpoint(path).files()
    assert "chat_template.jinja" not in files
    assert "chat_template" not in json.loads(files["tokenizer_config.json"])


@pytest.mark.parametrize(("value", "adds"), [(True, True), (1, True), (False, False), (0, False)])
def test_numbers_may_stand_for_true_and_false(tmp_path, value, adds):
    tokens = [*BYTES, "<|bos|>"]
    keys = {"tokenizer.ggml.bos_token_id": 256, "tokenizer.ggml.add_bos_token": value}
    path = write_model(
        tmp_path / "m.gguf", tokens, pre="qwen2", merges=None, keys=keys, kinds=[1] * 256 + [3]
    )
    assert (rebuilt(path).encode("a").ids[0] == 256) == adds


@pytest.mark.parametrize("value", ["false", 2, 0.5])
def test_what_is_neither_true_nor_false_is_named(tmp_path, value):
    keys = {"tokenizer.ggml.add_bos_token": value}
    path = write_model(tmp_path / "m.gguf", BYTES, pre="qwen2", merges=None, keys=keys)
    with pytest.raises(CheckpointError, match=r"add_bos_token is .* neither true nor false"):
        rebuilt(path)


NEUTRAL = {
    "attention.causal": True, "attention.sliding_window": 0, "expert_group_count": 1, "logit_scale": 0.0,
    "nextn_predict_layers": 0, "attention.clamp_kqv": 0.0, "tensor_data_layout": "reference",
}  # fmt: skip


def test_keys_at_values_that_mean_nothing_are_no_reason_to_refuse(tmp_path):
    keys = {f"llama.{name}": value for name, value in NEUTRAL.items()}
    plain = write_model(tmp_path / "m.gguf", BYTES, pre="qwen2", merges=None)
    path = write_model(tmp_path / "n.gguf", BYTES, pre="qwen2", merges=None, keys=keys)
    assert read_spec(open_checkpoint(path).config()) == read_spec(open_checkpoint(plain).config())
    for name, value in {"attention.causal": False, "expert_group_count": 8, "logit_scale": 0.5}.items():
        path = write_model(
            tmp_path / "o.gguf", BYTES, pre="qwen2", merges=None, keys={f"llama.{name}": value}
        )
        with pytest.raises(UnsupportedModelError, match=name):
            open_checkpoint(path)


@pytest.mark.parametrize(("kind", "said"), [("adapter", "an adapter"), ("mmproj", "the tower for images")])
def test_other_kinds_of_files_are_named(tmp_path, kind, said):
    keys = {"general.type": kind}
    tensors = {"token_embd.weight": None}
    path = write_model(tmp_path / "m.gguf", BYTES, pre="qwen2", merges=None, keys=keys, tensors=tensors)
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(path)


def test_a_vocabulary_beyond_the_embedding_is_told(tmp_path):
    tensors = {
        name: value[:-2] for name, value in make_tensors(len(BYTES)).items() if len(value) == len(BYTES)
    }
    path = write_model(tmp_path / "m.gguf", BYTES, pre="qwen2", merges=None, tensors=tensors)
    notes = convert(path, tmp_path / "store", plan_as_stored(open_checkpoint(path))).notes
    assert any("ids up to 255, and the model embeddings of 254" in note for note in notes)


def test_defaults_are_those_of_llama_cpp(tmp_path):
    for architecture in ("llama", "qwen2moe", "qwen3moe"):
        skip = ("rope.freq_base", "attention.head_count_kv", "expert_feed_forward_length")
        path = write_model(
            tmp_path / "m.gguf", BYTES, architecture=architecture, pre="qwen2", merges=None, skip=skip
        )
        config = open_checkpoint(path).config()
        assert config["rope_theta"] == 10000.0
        assert (config["num_key_value_heads"], config["head_dim"]) == (2, WIDTH // 2)
        if architecture != "llama":
            assert config["moe_intermediate_size"] == INNER
        if architecture == "qwen2moe":
            assert config["shared_expert_intermediate_size"] == 2 * INNER
        read_spec(config)


SCALING = {
    "old name": ({"rope.scale_linear": 4.0}, {"rope_type": "linear", "factor": 4.0}),
    "no kind": ({"rope.scaling.factor": 2.0}, {"rope_type": "linear", "factor": 2.0}),
    "one": ({"rope.scaling.type": "linear", "rope.scaling.factor": 1.0}, {"rope_type": "default"}),
    "none": ({"rope.scaling.type": "none", "rope.scaling.factor": 2.0}, {"rope_type": "default"}),
    "yarn": (
        {"rope.scaling.type": "yarn", "rope.scaling.factor": 2.0, "rope.scaling.yarn_beta_fast": 16.0},
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 128, "beta_fast": 16.0},
    ),
}


@pytest.mark.parametrize("name", SCALING)
def test_scaling_in_the_words_of_any_year(tmp_path, name):
    keys, expected = SCALING[name]
    keys = {f"llama.{key}": value for key, value in keys.items()}
    path = write_model(tmp_path / "m.gguf", BYTES, pre="llama-bpe", merges=None, keys=keys)
    config = open_checkpoint(path).config()
    assert config["rope_scaling"] == expected
    read_spec(config)


def test_pieces_of_a_file_are_named(tmp_path):
    """Files of more than 50 GB were once cut by size, for the Hub to take them."""
    whole = write_model(tmp_path / "m.gguf", BYTES, pre="qwen2", merges=None)
    data = whole.read_bytes()
    for name, part in (
        ("m.gguf.part1of2", data[:999]),
        ("m.gguf.part2of2", data[999:]),
        ("n.gguf-split-a", data),
    ):
        whole.with_name(name).write_bytes(part)
        with pytest.raises(CheckpointError, match=rf"{name}: is a piece of {name[0]}\.gguf; join all pieces"):
            open_checkpoint(whole.with_name(name))
    whole.unlink()
    with pytest.raises(CheckpointError, match=r"is a piece of m\.gguf"):
        open_checkpoint(tmp_path)


def test_the_example_of_a_folder_is_a_model(tmp_path):
    for name in ("imatrix.gguf", "mmproj-F16.gguf", "model-Q4_K_M.gguf"):
        write_model(tmp_path / name, BYTES, pre="qwen2", merges=None)
    with pytest.raises(CheckpointError, match=r"name the one to open, for example .*model-Q4_K_M\.gguf"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1\n", "is a pointer of Git LFS"),
        (b"<!DOCTYPE html><html>Sign in</html>", "is a web page"),
        (b"", "is empty"),
        (b"PK\3\4 and more", "not a GGUF file, begins with b'PK"),
    ],
)
def test_what_a_failed_download_leaves_is_named(tmp_path, data, said):
    (tmp_path / "m.gguf").write_bytes(data)
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(tmp_path / "m.gguf")


def test_tokens_may_have_been_added_since_their_number_was_written(tmp_path):
    path = write_model(tmp_path / "m.gguf", BYTES, pre="qwen2", merges=None, keys={"llama.vocab_size": 250})
    assert open_checkpoint(path).config()["vocab_size"] == len(BYTES)


@pytest.mark.parametrize("key", ["block_count", "expert_used_count", "attention.layer_norm_rms_epsilon"])
def test_missing_keys_are_named(tmp_path, key):
    path = write_model(tmp_path / "m.gguf", BYTES, merges=None, skip=(key,))
    with pytest.raises(CheckpointError, match=f"GGUF key llama.{key} is missing"):
        open_checkpoint(path)


def test_experts_in_one_tensor_or_in_many_are_the_same_model(tmp_path):
    plain = write_model(tmp_path / "plain.gguf", BYTES, pre="llama-bpe", merges=None)
    stacks = {p: make_tensors(256)[f"blk.0.ffn_{p}_exps.weight"] for p in ("gate", "up", "down")}
    single = {f"blk.0.ffn_{p}.{e}.weight": stacks[p][e] for p in stacks for e in range(EXPERTS)}
    no_stacks = {f"blk.0.ffn_{p}_exps.weight": None for p in stacks}
    fused = {"blk.0.ffn_gate_up_exps.weight": np.concatenate([stacks["gate"], stacks["up"]], axis=1)}
    left_out = {f"blk.0.ffn_{p}_exps.weight": None for p in ("gate", "up")}
    expected = logits_of(plain)
    for name, tensors in (("single", no_stacks | single), ("fused", left_out | fused)):
        path = write_model(tmp_path / f"{name}.gguf", BYTES, pre="llama-bpe", merges=None, tensors=tensors)
        assert np.array_equal(logits_of(path), expected)


def tensor_place(data, name):
    """Where the offset of a tensor stands in its description."""
    place = data.find(name) + len(name)
    return place + 8 + 8 * struct.unpack_from("<I", data, place)[0]


@pytest.mark.parametrize(("shift", "said"), [(32, "overlap"), (4, "at no multiple of 32 bytes")])
def test_tensors_lie_apart_and_aligned(tmp_path, shift, said):
    path = write_model(tmp_path / "m.gguf", BYTES, pre="llama-bpe", merges=None)
    data = bytearray(path.read_bytes())
    place = tensor_place(data, b"blk.0.ffn_up_exps.weight")
    struct.pack_into("<Q", data, place, struct.unpack_from("<Q", data, place)[0] - shift)
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(path)


@pytest.mark.parametrize("value", [[255, 3], "255", 255.0, True])
def test_an_end_token_of_another_kind_is_named(tmp_path, value):
    keys = {"tokenizer.ggml.eos_token_id": value}
    path = write_model(tmp_path / "m.gguf", BYTES, pre="llama-bpe", merges=None, keys=keys)
    with pytest.raises(CheckpointError, match=r"eos_token_id is .* no token id"):
        open_checkpoint(path).files()


def test_scores_that_are_no_numbers_are_refused(tmp_path):
    scores = [0.0, 0.0, 0.0, float("nan")]
    tokens = ["<unk>", "<s>", "</s>", "a"]
    path = write_model(tmp_path / "m.gguf", tokens, model="llama", merges=None, scores=scores)
    with pytest.raises(CheckpointError, match="scores has what is no number"):
        open_checkpoint(path).files()


def test_a_part_that_was_renamed_is_named(tmp_path):
    for number in (0, 1):
        keys = {"split.no": 1 - number, "split.count": 2}
        name = f"m-0000{number + 1}-of-00002.gguf"
        write_model(tmp_path / name, BYTES, pre="llama-bpe", merges=None, keys=keys)
    with pytest.raises(CheckpointError, match=r"00001-of.*says that it is part 1 of 2, .* part 0 of 2"):
        open_checkpoint(tmp_path / name)


def test_big_endian_files_are_the_same_model_or_refused_by_name(tmp_path):
    little = write_model(tmp_path / "little.gguf", BYTES, pre="llama-bpe", merges=None)
    big = write_model(tmp_path / "big.gguf", BYTES, pre="llama-bpe", merges=None, endian=gguf.GGUFEndian.BIG)
    assert np.array_equal(logits_of(big), logits_of(little))
    data = bytearray(big.read_bytes())
    set_type(data, b"blk.0.ffn_up_exps.weight", 8, ">")
    big.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"is big-endian, and tensor .* has blocks of Q8_0"):
        open_checkpoint(big)


def set_type(data, name, number, order="<"):
    """Another block type for a tensor, in its description."""
    place = data.find(name) + len(name)
    place += 4 + 8 * struct.unpack_from(f"{order}I", data, place)[0]
    struct.pack_into(f"{order}I", data, place, number)


@pytest.mark.parametrize("name", ["model", "MODEL.GGUF", "sha256-6e4c38e1172f42", "m.gguf.part", "m.bin"])
def test_files_are_known_by_their_first_bytes(tmp_path, name):
    path = write_model(tmp_path / "m.gguf", BYTES, pre="llama-bpe", merges=None)
    other = path.rename(tmp_path / name)
    assert edgemoe.checkpoint.is_gguf(other)
    assert open_checkpoint(other).config()["model_type"] == "mixtral"


TYPES = {4: "Q4_2", 31: "Q4_0_4_4", 37: "IQ4_NL_4_8", 139: "IQ4_K, of ik_llama", 156: "IQ3_KS", 42: "Q2_0",
         212: "Q4_K_R4", 9: "Q8_1", 26: "I32", 5000: "unknown"}  # fmt: skip


@pytest.mark.parametrize("number", TYPES)
def test_block_types_that_are_not_read_are_named(tmp_path, number):
    path = write_model(tmp_path / "m.gguf", BYTES, merges=None)
    data = bytearray(path.read_bytes())
    set_type(data, b"blk.0.ffn_up_exps.weight", number)
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"ffn_up_exps.* has block type {number} \({TYPES[number]}"):
        open_checkpoint(path)


def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(data)) + data


def start(num_tensors=0, num_keys=1, version=3, magic=b"GGUF"):
    return magic + struct.pack("<IQQ", version, num_tensors, num_keys)


ARRAY = string("a") + struct.pack("<II", 9, 4)
TENSOR = string("t") + struct.pack("<IQQIQ", 2, 32, 32, 0, 0)
SMALL = {
    "array of 2^60": (start() + ARRAY + struct.pack("<Q", 2**60), "cut short"),
    "array of 10^8": (start() + ARRAY + struct.pack("<Q", 10**8) + b"\0" * 100, "cut short"),
    "texts without end": (start() + string("a") + struct.pack("<IIQ", 9, 8, 10**8), "claims 100000000"),
    "text of 2^63": (start() + struct.pack("<Q", 2**63), "cut short"),
    "2^40 keys": (start(num_keys=2**40), "claims 0 tensors and 1099511627776 keys"),
    "2^40 tensors": (start(2**40, 0), "more than fit its size"),
    "arrays in arrays": (
        start() + string("a") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 50, "is not known"
    ),
    "no such type": (start() + string("a") + struct.pack("<I", 77) + b"\0" * 8, "value of type 77"),
    "twice": (start(num_keys=2) + (string("a") + struct.pack("<II", 4, 1)) * 2, "key 'a' twice"),
    "key not UTF-8": (
        start() + string(b"\xff\xfe") + struct.pack("<II", 4, 1), "key of its metadata is not UTF-8"
    ),
    "tensor not UTF-8": (start(1, 0) + string(b"\xff") + b"\0" * 64, "name of a tensor is not UTF-8"),
    "no axes": (start(1, 0) + string("t") + struct.pack("<IIQ", 0, 0, 0) + b"\0" * 32, "has 0 axes"),
    "empty tensor": (
        start(1, 0) + TENSOR.replace(struct.pack("<Q", 32), struct.pack("<Q", 0), 1), "is empty"
    ),
    "huge tensor": (
        start(1, 0) + string("t") + struct.pack("<IQQIQ", 2, 2**62, 2**62, 0, 0), "ends behind its end"
    ),
    "far tensor": (start(1, 0) + string("t") + struct.pack("<IQIQ", 1, 32, 0, 2**63), "ends behind its end"),
    "alignment 0": (
        start(1, 1) + string("general.alignment") + struct.pack("<II", 4, 0) + TENSOR, "no power of two"
    ),
    "version 1": (start(version=1), "GGUF version 1"),
    "version 9": (start(version=9), "GGUF version 9"),
    "before GGUF": (start(magic=b"tjgg"), "before GGUF"),
    "nothing": (b"", "is empty"),
    "only magic": (b"GGUF", "cut short"),
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_small_files_cost_little_and_say_what_is_wrong(tmp_path, name):
    data, message = SMALL[name]
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["block_count", "expert_count"])
def test_counts_are_held_against_the_tensors(tmp_path, name):
    path = write_model(tmp_path / "m.gguf", BYTES, merges=None)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.find(name.encode()) + len(name) + 4, 10**9)
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="the file says 1000000000"):
        open_checkpoint(path)


HUGE = {
    "one of 400,000": (["a", "b" * 400_000], "has 400000 characters"),
    "all beginnings": (["a" * i for i in range(1, 3000)], "more pairs of tokens"),
}


@pytest.mark.parametrize("name", HUGE)
def test_vocabularies_of_odd_shapes_are_refused_at_once(tmp_path, name):
    words, message = HUGE[name]
    tokens = ["<unk>", "<s>", "</s>", *words]
    path = write_model(tmp_path / "m.gguf", tokens, model="llama", merges=None, scores=[0.0] * len(tokens))
    source = open_checkpoint(path)
    began = time.process_time()
    with pytest.raises(CheckpointError, match=message):
        source.files()
    assert time.process_time() - began < 20


DAMAGED_TEXT = {
    "kinds too few": ({"kinds": [1, 1]}, "token_type has 2 entries for 256 tokens"),
    "kind of vocabulary": ({"model": "rwkv", "merges": None}, "kind 'rwkv' are not known"),
    "no scores": ({"model": "llama", "merges": None}, "without scores"),
    "merge without a space": ({"merges": ["ab"]}, "the merge 'ab' needs"),
    "ids that are none": (
        {"keys": {"tokenizer.ggml.eos_token_id": 10**6}, "pre": "qwen2", "merges": None}, None
    ),
    "no merges": ({"tokens": [*BYTES, "abc"], "merges": None, "pre": "qwen2"}, "no merges that make them"),
    "twice": ({"tokens": [*BYTES, "a", ""], "merges": None, "pre": "qwen2"}, None),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED_TEXT)
def test_damaged_vocabularies_are_one_line(tmp_path, name):
    options, message = DAMAGED_TEXT[name]
    options = dict(options)
    tokens = options.pop("tokens", BYTES)
    source = open_checkpoint(write_model(tmp_path / "m.gguf", tokens, **options))
    if message is None:
        assert source.files()
        return
    with pytest.raises(CheckpointError, match=message) as caught:
        source.files()
    assert "\n" not in str(caught.value)


def test_a_split_file_without_its_name_says_so(tmp_path):
    keys = {"split.count": 3, "split.no": 0, "split.tensors.count": 12}
    path = write_model(tmp_path / "blob", BYTES, merges=None, keys=keys)
    with pytest.raises(CheckpointError, match=r"is one of 3 files of a split model.*-00001-of-00003"):
        open_checkpoint(path)


def test_an_architecture_that_is_not_run_is_named(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "m", "bert")
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnsupportedModelError, match="'bert' is not supported"):
        open_checkpoint(tmp_path / "m")


def test_what_was_guessed_and_what_fails_is_told_before_the_work(tmp_path):
    keys = {"tokenizer.chat_template": "{{ raise_exception('no system role') }}"}
    kinds = [1] * 256 + [3]
    path = write_model(
        tmp_path / "m.gguf", [*BYTES, "<|bos|>"], pre="my-own", merges=None, keys=keys, kinds=kinds
    )
    notes = convert(path, tmp_path / "store", plan_as_stored(path)).notes
    assert any("splits text the way of 'my-own', which is not known" in note for note in notes)
    assert any("`edgemoe chat` will not work" in note and "no system role" in note for note in notes)


def test_a_signalling_nan_is_refused_without_a_warning_of_numpy(tmp_path):
    """The suite makes errors of warnings."""
    values = make_tensors(257)["blk.0.ffn_down_exps.weight"]
    values.view(np.uint32)[0, 0, 0] = 0x7F800001
    path = write_model(
        tmp_path / "m.gguf", [*BYTES, "<|bos|>"], pre="qwen2", merges=None, kinds=[1] * 256 + [3],
        tensors={"blk.0.ffn_down_exps.weight": values},
    )  # fmt: skip
    with pytest.raises(CheckpointError, match=r"ffn_down_exps.* not finite"):
        convert(path, tmp_path / "store", plan_as_stored(open_checkpoint(path)))
