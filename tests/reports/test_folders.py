"""Folders as people have them: which files count, what stands where another should, impossible numbers.

Every conversion is told to fail or to answer as model.safetensors says: never anything else.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from helpers.chains import chain_config, chain_weights, follower, write_chain
from safetensors.numpy import save_file

import edgemoe
from edgemoe.calib.widths import make_profile
from edgemoe.checkpoint import open_checkpoint
from edgemoe.convert import convert, estimate
from edgemoe.errors import CheckpointError, EdgeMoEError, RequestError
from edgemoe.quant import BitPlan
from edgemoe.store import open_store

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "ab" * 32 + "\nsize 11422654\n"
EXACT = BitPlan.uniform("f32", "f32")
HEAD, EMBEDDING, NORM = "lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"
EXPERT = "model.layers.0.block_sparse_moe.experts.1.w1.weight"


@pytest.fixture
def folder(tmp_path):
    return write_chain(tmp_path / "model")


def follows(folder, token=5, plan=EXACT):
    """The token that the converted folder puts after another."""
    store = folder.with_name("store")
    convert(folder, store, plan, overwrite=True)
    with edgemoe.load(store, "2GiB", context=16) as model:
        return model.generate([token], max_tokens=1).token_ids[0]


def refused(folder, match):
    """The folder is refused so, and nothing is left of the attempt."""
    with pytest.raises(CheckpointError, match=match):
        convert(folder, folder.with_name("store"), EXACT)
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]


def write_index(folder, weight_map, name="model.safetensors.index.json"):
    (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def split(folder, weights=None, first=HEAD):
    """Two shards and their index in place of model.safetensors."""
    weights = chain_weights() if weights is None else weights
    (folder / "model.safetensors").unlink(missing_ok=True)
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    save_file({first: weights[first]}, folder / names[0])
    save_file({n: t for n, t in weights.items() if n != first}, folder / names[1])
    write_index(folder, {n: names[n != first] for n in weights})
    return names


# --- which files count


@pytest.mark.parametrize(
    "name",
    ["model_old.safetensors", "model.fp16.safetensors", "model-00001-of-00002.safetensors",
     "consolidated.safetensors", "adapter_model.safetensors", "a.safetensors"],
)  # fmt: skip
def test_beside_model_safetensors_nothing_supplies_weights(folder, name):
    save_file(chain_weights(5, 1), folder / name)
    (folder / "training_args.bin").write_bytes(b"\x80")
    (folder / "optimizer.pt").write_bytes(b"\x80")
    assert follows(folder) == follower(5) == 38


def test_a_single_file_comes_before_an_index(folder):
    weights = chain_weights(5, 1)
    save_file(weights, folder / "other.safetensors")
    write_index(folder, dict.fromkeys(weights, "other.safetensors"))
    assert follows(folder) == 38


def test_safetensors_come_before_torch_files(folder):
    torch = pytest.importorskip("torch")
    other = {name: torch.from_numpy(t) for name, t in chain_weights(5, 1).items()}
    torch.save(other, folder / "pytorch_model.bin")
    assert follows(folder) == 38


def test_an_index_decides_and_strays_are_not_read(folder):
    split(folder)
    save_file(chain_weights(5, 1), folder / "model-00003-of-00003.safetensors")
    assert follows(folder) == 38


def test_a_complete_set_without_its_index_is_taken(folder):
    split(folder)
    (folder / "model.safetensors.index.json").unlink()
    assert follows(folder) == 38
    (folder / "model-00001-of-00002.safetensors").unlink()
    store = folder.with_name("store")
    with pytest.raises(CheckpointError, match=r"1 files model-\*.safetensors of 2, and no model.safetensors"):
        convert(folder, store, EXACT, overwrite=True)


def test_a_tensor_in_two_files_is_that_of_the_file_which_the_index_names(folder):
    names = split(folder)
    weights = chain_weights()
    save_file({HEAD: weights[HEAD], NORM: np.full_like(weights[NORM], np.nan)}, folder / names[0])
    assert follows(folder) == 38


def test_a_tensor_that_is_not_where_the_index_says_is_found(folder):
    names = split(folder)
    write_index(folder, {n: names[n == HEAD] for n in chain_weights()})
    assert follows(folder) == 38


def test_a_tensor_in_two_files_without_an_index_that_names_one_is_an_error(folder):
    names = split(folder)
    weights = chain_weights()
    save_file({HEAD: weights[HEAD], NORM: weights[NORM]}, folder / names[0])
    index = folder / "model.safetensors.index.json"
    record = json.loads(index.read_text())
    del record["weight_map"][NORM]
    index.write_text(json.dumps(record))
    refused(folder, rf"model-00002-of-00002.safetensors: tensor {NORM} is also in model-00001")


def test_a_tensor_twice_in_one_header_is_an_error(folder):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = data[8 : 8 + length].rstrip()
    place = json.dumps(json.loads(header)[NORM])
    doubled = header[:-1] + f',"{NORM}":{place}}}'.encode()
    path.write_bytes(struct.pack("<Q", len(doubled)) + doubled + data[8 + length :])
    refused(folder, f"{NORM} stands there twice")


def test_an_index_may_promise_what_the_model_does_not_need(folder):
    """Stale entries, such as a buffer of old, are no reason to refuse; a weight that is needed is."""
    names = split(folder)
    weight_map = {n: names[n != HEAD] for n in chain_weights()}
    write_index(folder, {**weight_map, "model.layers.0.self_attn.rotary_emb.inv_freq": names[0]})
    assert follows(folder) == 38
    save_file({NORM: chain_weights()[NORM]}, folder / names[0])
    with pytest.raises(CheckpointError):
        convert(folder, folder.with_name("store"), EXACT, overwrite=True)


def test_an_index_that_misses_files_names_them(folder):
    names = split(folder)
    (folder / names[0]).unlink()
    refused(folder, rf"{names[0]}: not found, though model.safetensors.index.json names it")


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "a/../../b", "", ".", 3, "a\x1bb"])
def test_an_index_cannot_lead_out_of_its_folder(folder, name):
    split(folder)
    save_file(chain_weights(), folder.parent / "outside.safetensors")
    write_index(folder, dict.fromkeys(chain_weights(), name))
    with pytest.raises(CheckpointError, match=r"model.safetensors.index.json: ") as caught:
        convert(folder, folder.with_name("store"), EXACT)
    assert str(caught.value).isprintable()


def test_a_file_that_the_configuration_names_is_taken(folder):
    (folder / "model.safetensors").rename(folder / "mine.safetensors")
    (folder / "config.json").write_text(json.dumps(chain_config(transformers_weights="mine.safetensors")))
    save_file(chain_weights(5, 1), folder / "model.safetensors")
    assert follows(folder) == 38


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("adapter_model.safetensors", "an adapter, not a model: merge it into its base model"),
        ("consolidated.00.pth", "makers' own layout"),
        ("consolidated.safetensors", "makers' own layout"),
        ("model.fp16.safetensors", "a variant: rename it to model.safetensors"),
        ("tf_model.h5", "weights of TensorFlow"),
        ("weights.00.npz", "weights of MLX"),
        ("model.safetensors.incomplete", "a download that has not ended"),
        ("weights.safetensors", "rename it to model.safetensors"),
        ("zero_to_fp32.py", "joins the parts of a training: run it"),
        ("__0_0.distcp", "a part of a training by FSDP"),
    ],
)
def test_other_files_are_named_with_what_to_do(folder, name, said):
    (folder / "model.safetensors").rename(folder / name)
    refused(folder, f"no model.safetensors; {name} is .*{said}")


@pytest.mark.parametrize("has_config", [True, False])
def test_folders_of_models_in_a_folder_are_named(folder, has_config):
    """What training leaves: checkpoints in folders, and an adapter or nothing outside."""
    for name in ("checkpoint-90", "checkpoint-500"):
        write_chain(folder / name)
    (folder / "adapter_model.safetensors").write_bytes(b"x")
    (folder / "model.safetensors").unlink()
    if not has_config:
        (folder / "config.json").unlink()
    refused(folder, r"models are in its folders, such as checkpoint-500: give that, .*/checkpoint-500$")


def test_an_adapter_beside_a_model_is_not_used_without_a_word(folder):
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file({"lora_A.weight": np.ones((2, 2), np.float32)}, folder / "adapter_model.safetensors")
    notes = convert(folder, folder.with_name("store"), EXACT).notes
    assert [note for note in notes if "an adapter lies beside the weights and is not used" in note]
    assert follows(folder) == 38


def test_an_adapter_without_a_configuration_is_named(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"no config.json; adapter_model.safetensors is an adapter"):
        convert(tmp_path, tmp_path / "store", EXACT)


# --- what stands where another should


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (POINTER, "is a pointer of Git LFS"),
        ("<!DOCTYPE html><html>Sign in</html>", "is a web page"),
        ("", "is empty"),
    ],
)
@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja",
             "generation_config.json"]
)  # fmt: skip
def test_what_a_failed_download_leaves_is_named_before_the_work(folder, name, content, said):
    (folder / name).write_text(content)
    refused(folder, f"{name}: {said}")


def test_a_pointer_in_place_of_a_shard_or_a_torch_file(folder):
    names = split(folder)
    (folder / names[1]).write_text(POINTER)
    refused(folder, f"{names[1]}: is a pointer of Git LFS")
    for name in (*names, "model.safetensors.index.json"):
        (folder / name).unlink()
    (folder / "pytorch_model.bin").write_text(POINTER)
    refused(folder, "pytorch_model.bin: is a pointer of Git LFS")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tokenizer.json", '{"model": 3}', "is no tokenizer"),
        ("tokenizer.json", "{", "is no JSON"),
        ("tokenizer_config.json", "[" * 100_000, "is nested too deep|is no JSON"),
        ("generation_config.json", "[]", "is not a JSON object"),
        ("config.json", '{"a":' * 100_000, "is nested too deep"),
    ],
)
def test_damaged_side_files_are_found_before_the_work(folder, name, content, said):
    (folder / name).write_text(content)
    refused(folder, f"{name}: {said}")


def test_a_missing_tokenizer_is_told_of_before_the_work(folder):
    told = []
    convert(folder, folder.with_name("store"), EXACT, tell=told.append)
    assert ["there is no tokenizer.json" in line for line in told] == [True]
    assert estimate(folder, EXACT).notes == tuple(told)


def test_settings_of_answers_that_are_not_followed_are_told(folder):
    asked = {
        "suppress_tokens": [7],
        "bad_words_ids": [[7]],
        "no_repeat_ngram_size": 3,
        "num_beams": 1,
        "stop_strings": None,
        "top_k": 5,
    }
    (folder / "generation_config.json").write_text(json.dumps(asked))
    notes = convert(folder, folder.with_name("store"), EXACT).notes
    assert (
        "generation_config.json: bad_words_ids, no_repeat_ngram_size: not followed when it answers" in notes
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"top_p": 2},
        {"temperature": "0.7"},
        {"temperature": -1},
        {"repetition_penalty": 0},
        {"suppress_tokens": 7},
        {"begin_suppress_tokens": ["a"]},
    ],
)
def test_settings_with_which_no_store_would_load_are_refused_before_the_work(folder, settings):
    (folder / "generation_config.json").write_text(json.dumps(settings))
    refused(folder, f"generation_config.json: {next(iter(settings))} .*correct it")


def test_a_mark_of_byte_order_is_no_fault(folder):
    (folder / "generation_config.json").write_text('{"top_k": 1, "do_sample": true}', "utf-8-sig")
    assert follows(folder) == 38


def test_what_is_no_folder_of_a_model_is_said(folder):
    with pytest.raises(CheckpointError, match=rf"one file of a checkpoint; give its folder, {folder}"):
        open_checkpoint(folder / "model.safetensors")
    snapshot = folder.parent / "models--a--b" / "snapshots" / "0123"
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    with pytest.raises(CheckpointError, match=rf"the Hub's cache; give the snapshot in it, {snapshot}"):
        open_checkpoint(snapshot.parents[1])
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").mkdir()
    with pytest.raises(CheckpointError, match=r"config\.json: is a folder or a device"):
        open_checkpoint(snapshot)


def test_texts_are_not_measured_on_without_a_tokenizer(folder, tmp_path):
    with pytest.raises(RequestError, match=r"has no tokenizer\.json, and widths are measured on text"):
        make_profile(folder, tmp_path / "profile", {"text": "a b c"})
    assert not (tmp_path / "profile").exists()


def test_sampling_settings_of_the_configuration_are_kept(folder):
    """transformers takes them from there where there is no generation_config.json."""
    (folder / "config.json").write_text(json.dumps(chain_config(do_sample=True, temperature=0.6)))
    convert(folder, folder.with_name("store"), EXACT)
    kept = json.loads((folder.with_name("store") / "generation_config.json").read_text())
    assert kept == {"do_sample": True, "temperature": 0.6}


# --- tensors


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({EXPERT: EXPERT.replace("weight", "qweight")}, "quantised by GPTQ or AWQ"),
        ({EXPERT: EXPERT.replace("weight", "scales")}, "quantised by MLX"),
        ({EXPERT: EXPERT.replace("weight", "lora_A.weight")}, "it is an adapter, or holds one"),
        ({EXPERT: EXPERT.replace(".experts.", ".switch_mlp.")}, "it has MLX's layout"),
        ({n: f"module.{n}" for n in chain_weights()}, "names begin with those of a training program"),
        ({n: f"_orig_mod.{n}" for n in chain_weights()}, "names begin with those of a training program"),
        ({n: f"language_model.{n}" for n in chain_weights()}, "text part of a model of several kinds"),
        ({EMBEDDING: "tok_embeddings.weight"}, "makers' own layout"),
        ({n: f"model.{n}" for n in chain_weights()}, "names begin with those of a training program"),
        ({n: n.removeprefix("model.") for n in chain_weights()}, r"lack their 'model\.'"),
        ({HEAD: "score.weight"}, "it is a classifier"),
    ],
)
def test_foreign_names_say_what_they_are(folder, names, said):
    save_file({names.get(n, n): t for n, t in chain_weights().items()}, folder / "model.safetensors")
    refused(folder, said)


def test_the_value_head_of_training_is_not_run(folder):
    head = {"v_head.summary.weight": np.ones((1, 64), np.float32)}
    save_file({**chain_weights(), **head}, folder / "model.safetensors")
    notes = convert(folder, folder.with_name("store"), EXACT).notes
    assert "1 tensors of the value head of its training are not run" in notes
    assert follows(folder) == 38


LEFT_SETTINGS = {
    "bitsandbytes": {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
    "before methods had names": {"quantization_config": {"load_in_4bit": True, "load_in_8bit": False}},
    "nothing": {"quantization_config": {}},
    "MLX": {"quantization": {"group_size": 64, "bits": 4}, "quantization_config": {"bits": 4}},
    "read ones": {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}},
    "older compressed-tensors": {"compression_config": {"format": "dense"}},
}


@pytest.mark.parametrize("name", LEFT_SETTINGS)
def test_settings_of_a_quantisation_that_was_undone_are_no_reason_to_refuse(folder, name):
    """Programs that merge an adapter write whole weights and leave what config.json said of the base."""
    settings = LEFT_SETTINGS[name]
    (folder / "config.json").write_text(json.dumps(chain_config(**settings)))
    told = []
    convert(folder, folder.with_name("store"), EXACT, tell=told.append)
    assert any("weights are quantised" in line for line in told) == any(settings.values())
    assert follows(folder) == 38


@pytest.mark.parametrize("name", ["bitsandbytes", "before methods had names", "MLX"])
def test_a_quantisation_that_was_done_is_refused_by_name(folder, name):
    (folder / "config.json").write_text(json.dumps(chain_config(**LEFT_SETTINGS[name])))
    weights = chain_weights()
    weights[EXPERT] = np.zeros((1024, 1), np.uint8)
    save_file(weights, folder / "model.safetensors")
    refused(folder, "quantised by|names no method")


def test_weights_in_double_precision_are_read(folder):
    save_file({n: t.astype(np.float64) for n, t in chain_weights().items()}, folder / "model.safetensors")
    assert follows(folder) == 38


def test_tokens_that_training_added_without_the_key_are_told(folder):
    weights = chain_weights()
    for name in (EMBEDDING, HEAD):
        weights[name] = np.concatenate([weights[name], np.zeros((3, 64), np.float32)])
    save_file(weights, folder / "model.safetensors")
    refused(folder, r"has shape \(67, 64\), config.json implies \(64, 64\); .* set vocab_size to 67")
    (folder / "config.json").write_text(json.dumps(chain_config(vocab_size=67)))
    assert follows(folder) == 38


def test_a_tensor_without_entries_is_nothing_that_could_be_missing(folder):
    save_file({**chain_weights(), "model.layers.0.mlp.shared.weight": np.zeros((0, 64), np.float32)},
              folder / "model.safetensors")  # fmt: skip
    assert follows(folder) == follower(5)


def test_types_that_cannot_be_read_are_found_before_the_work(folder):
    weights = chain_weights()
    weights[EXPERT] = np.ones(weights[EXPERT].shape, np.int64)
    save_file(weights, folder / "model.safetensors")
    refused(folder, rf"tensor {EXPERT} has type I64")
    with pytest.raises(CheckpointError, match="has type I64"):
        estimate(folder, EXACT)


def test_a_stored_head_that_differs_is_used_though_the_configuration_ties_it(folder):
    (folder / "config.json").write_text(json.dumps(chain_config(tie_word_embeddings=True)))
    told = []
    convert(folder, folder.with_name("store"), EXACT, tell=told.append)
    assert "the head differs from the embedding" in told[0]
    assert follows(folder) == 38


def test_a_stored_head_that_is_the_embedding_is_not_stored_again(folder):
    weights = chain_weights()
    weights[HEAD] = weights[EMBEDDING].copy()
    write_chain(folder, weights, tie_word_embeddings=True)
    report = convert(folder, folder.with_name("store"), EXACT)
    assert not any("head" in note for note in report.notes)
    assert follows(folder) == 5


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [NORM, HEAD, EMBEDDING, EXPERT, "model.layers.0.self_attn.k_proj.weight"])
def test_weights_that_are_not_finite_are_refused_by_name(folder, name, value):
    weights = chain_weights()
    weights[name].flat[-1] = value
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"tensor {name} holds values that are not finite"):
        convert(folder, folder.with_name("store"), EXACT)
    assert not folder.with_name("store").exists()


SIGNALLING = np.array([0x7F800001], np.uint32).view(np.float32)[0]


@pytest.mark.parametrize("values", [np.array([SIGNALLING]), np.array([1e300])], ids=["signalling", "double"])
def test_numbers_that_are_none_are_refused_without_a_warning_of_numpy(folder, values):
    """The suite makes errors of warnings."""
    weights = chain_weights()
    weights[EXPERT] = weights[EXPERT].astype(values.dtype)
    weights[EXPERT].view(f"u{values.itemsize}").flat[-1] = values.view(f"u{values.itemsize}")[0]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"tensor {EXPERT} holds values that are not finite"):
        convert(folder, folder.with_name("store"), EXACT)


@pytest.mark.parametrize("format", ["f16", "q2", "q3", "q4", "q6", "q8", "t2", "t3"])
@pytest.mark.parametrize("name", [HEAD, EXPERT])
def test_weights_beyond_a_format_are_refused_by_name(folder, name, format):
    weights = chain_weights()
    weights[name][3, 3] = 1e30
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"tensor {name} holds 1e\+30, which {format} cannot"):
        convert(folder, folder.with_name("store"), BitPlan.uniform(format, format))


def test_a_large_weight_that_its_format_holds_is_no_error(folder):
    weights = chain_weights()
    weights[HEAD] *= np.float32(1e5)
    save_file(weights, folder / "model.safetensors")
    report = convert(folder, folder.with_name("store"), BitPlan.uniform("q8", "q8"))
    assert all(np.isfinite(list(report.rounding.values())))
    assert follows(folder, plan=BitPlan.uniform("bf16", "bf16")) == 38


# --- files that are small and say that they are large, or that are nothing at all


def header(entries):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (struct.pack("<Q", 1 << 62), "cut off inside its header"),
        (struct.pack("<Q", 2) + b"[]", "damaged safetensors header"),
        (header({"t": {"dtype": "F4X", "shape": [1], "data_offsets": [0, 1]}}), "type 'F4X', which is not"),
        (header({"t": {"dtype": "U8", "shape": [1] * 99, "data_offsets": [0, 1]}}) + b"x", "has 99 axes"),
        (header({"t": {"dtype": "U8", "shape": [True], "data_offsets": [0, 1]}}) + b"x", "cannot be"),
        (header({"t": {"dtype": "U8", "shape": [10**30], "data_offsets": [0, 1]}}) + b"x", "cannot be"),
        (header({"t": {"dtype": "U8", "shape": [9], "data_offsets": [0, 9]}}) + b"x", "cut off"),
        (
            header({n: {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} for n in "ab"}) + b"xxxx",
            "tensors a and b share bytes",
        ),
        (struct.pack("<Q", 200_000) + b'{"a":' * 40_000, "damaged safetensors header"),
    ],
)
def test_headers_that_cannot_be_are_refused(folder, data, said):
    (folder / "model.safetensors").write_bytes(data)
    refused(folder, said)


def test_names_with_control_sequences_are_shown_as_escapes(folder):
    weights = chain_weights()
    weights["\x1b]0;owned\x07\x1b[31m"] = weights[NORM]
    save_file(weights, folder / "model.safetensors")
    command = [sys.executable, "-m", "edgemoe", "convert", str(folder), str(folder.with_name("store"))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip().isprintable()
    assert r"\x1b]0;owned\x07" in done.stderr


def test_every_error_of_ours_is_one_printable_line():
    assert str(EdgeMoEError("a\nb\x1b[31m\u202e" + "x" * 9000)).isprintable()


def test_a_link_to_a_store_stays_one(folder, tmp_path):
    """Stores are kept on another disk by a link; what it leads to is made or replaced, and nothing else."""
    disk, link = tmp_path / "disk", tmp_path / "a.store"
    disk.mkdir()
    link.symlink_to(disk / "b.store")
    (disk / "b.store.replaced").symlink_to(disk)
    for overwrites in (False, True):
        convert(folder, link, EXACT, overwrite=overwrites)
        assert open_store(link).manifest
        assert link.is_symlink()
        assert {path.name for path in disk.iterdir()} == {"b.store", "b.store.replaced"}
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "a.store", "model"}
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(EdgeMoEError, match="leads to itself"):
        convert(folder, loop, EXACT)


def test_a_pipe_is_no_manifest(tmp_path):
    os.mkfifo(tmp_path / "edgemoe.json")
    with pytest.raises(EdgeMoEError, match="is no file"):
        open_store(tmp_path)


def test_a_link_to_what_is_gone_is_said(tmp_path, folder):
    """The cache of the Hub was emptied, and the folder of links is still there."""
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(tmp_path / "blobs" / "0a1b")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: is a link to .*0a1b, which is not there"):
        open_checkpoint(folder)


def test_a_file_of_a_store_is_given(store_copy):
    with pytest.raises(EdgeMoEError, match=r"edgemoe\.json: is a file of a store; give its folder"):
        open_store(store_copy / "edgemoe.json")
