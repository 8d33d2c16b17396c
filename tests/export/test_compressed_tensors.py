"""Stores written as checkpoints of compressed-tensors: transformers and our reader find the same model."""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("compressed_tensors")
import transformers
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig
from compressed_tensors.utils.match import match_name
from helpers.resident import load_resident
from helpers.tiny_models import VOCAB_SIZE, write_checkpoint
from helpers.tiny_mtp import write_mtp_checkpoint
from safetensors.torch import load_file

import edgemoe
from edgemoe.checkpoint import open_checkpoint
from edgemoe.convert import convert
from edgemoe.errors import ConversionError, CorruptStoreError, RequestError, UnsupportedModelError
from edgemoe.export import export_checkpoint, export_gguf
from edgemoe.export.shards import INDEX, StoredTensor, cut_shards
from edgemoe.models import find_sources, read_spec
from edgemoe.quant import BitPlan, ExpertFormats
from edgemoe.store import open_store
from edgemoe.store.durable import lock_folder

TOKENS = np.random.default_rng(3).integers(0, VOCAB_SIZE, 24).astype(np.int32)
DEMO = Path(edgemoe.__file__).parent / "demo_store"
# transformers multiplies codes by scales in bf16, which changes a weight by up to 2^-9, and we in f32. What
# integers of 4 bits change is ten times as much.
BF16_PRODUCTS = 0.02
# Of a Gaussian, relative: 0.5 % by 8 bits in groups of 32, twice, and by 4 bits 7.6 % (q4) and then 8.6 %. A
# matrix is small here, so its own number may be a tenth larger.
CHANGED_BY_8_BITS, CHANGED_BY_4_BITS = 0.008, 1.1 * (0.076**2 + 0.086**2) ** 0.5
# Every kind of difference between what checkpoints and stores have: names, order of rows, norms less one.
LOADED = (
    *("qwen3", "qwen3-dense-layers", "olmoe", "mixtral", "glm4-groups-biases", "qwen2", "lfm2", "qwen3-next"),
    *("qwen3.5", "deepseek3", "ernie", "hy", "nemotron", "mimo", "minimax"),
)


def exported(tmp_path, variation, plan, type_name=None, **changes):
    folder = write_checkpoint(tmp_path / "hf", variation, **changes)
    convert(folder, tmp_path / "store", plan)
    return folder, export_checkpoint(tmp_path / "store", tmp_path / "out", type_name=type_name)


def in_transformers(folder, tokens=TOKENS):
    """Logits, and what could not be loaded."""
    model, found = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager", dtype=torch.float32
    )
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens).long()[None]).logits[0].numpy()
    return logits, {kind: sorted(names) for kind, names in found.items() if names}


def in_engine(folder, tokens=TOKENS):
    source = open_checkpoint(folder)
    spec, decoder = load_resident(source)
    source.close()
    return decoder.head(decoder.forward(tokens, spec.new_state(len(tokens), "f32")))


def values(folder):
    """All values of all parts of a model, by canonical name and by expert."""
    source = open_checkpoint(folder)
    spec = read_spec(source.config())
    sources = find_sources(spec, {name: info.shape for name, info in source.tensors().items()})
    found = {name: source.read(ref) for name, ref in {**sources.dense, **sources.experts}.items()}
    source.close()
    return found


def read_config(folder):
    return json.loads((folder / "config.json").read_text())


def difference(found, wanted):
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def module_names(tensors):
    """Names of tensors as they were before they were packed."""
    packed = (name.replace("weight_packed", "weight") for name in tensors)
    return {name for name in packed if not name.endswith(("weight_scale", "weight_shape"))}


@pytest.mark.parametrize("variation", LOADED)
def test_transformers_loads_what_the_engine_reads(tmp_path, variation):
    folder, report = exported(tmp_path, variation, BitPlan.uniform("q4", "q8"))
    stored = {name for path in (tmp_path / "out").glob("*.safetensors") for name in load_file(path)}
    assert module_names(stored) == set(load_file(folder / "model.safetensors"))
    assert report.num_tensors == len(stored)
    assert set(report.expert_types.values()) == {"w4a16"}
    logits, lacking = in_transformers(tmp_path / "out")
    assert not lacking
    assert difference(logits, in_engine(tmp_path / "out")) < BF16_PRODUCTS
    before, after = values(folder), values(tmp_path / "out")
    for name, wanted in before.items():
        bound = CHANGED_BY_4_BITS if isinstance(name, tuple) else CHANGED_BY_8_BITS
        assert difference(after[name], wanted) <= bound, name


def test_the_demo_goes_to_transformers_with_its_tokenizer(tmp_path):
    report = export_checkpoint(DEMO, tmp_path / "out", type_name="w8a16")
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files >= {"tokenizer.json", "generation_config.json", "chat_template.jinja", "config.json", INDEX}
    assert not files & {"edgemoe.json", "lock"}
    assert not any(name.startswith("predictor") for name in files)
    assert report.num_bytes == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    tokens = np.array(tokenizer("Once upon a time there was a little girl")["input_ids"], np.int32)
    logits, lacking = in_transformers(tmp_path / "out", tokens)
    assert not lacking
    assert difference(logits, in_engine(tmp_path / "out", tokens)) < BF16_PRODUCTS


MIXED = BitPlan(
    ExpertFormats("q2", "q3", "q4"),
    "q8",
    {(1, expert): ExpertFormats("q2", "q2", "q2") for expert in range(7)}
    | {(1, 7): ExpertFormats("q8", "q6", "q8")},
)


def test_a_layer_with_2_and_8_bits_has_8_and_libraries_find_its_scheme(tmp_path):
    _, report = exported(tmp_path, "qwen3", MIXED, hidden_size=128)
    assert report.expert_types == {0: "w4a16", 1: "w8a16", 2: "w4a16"}
    assert report.num_matrices["q2 → w8a16"] == 7 * 3
    assert any("transformers wants one type" in note for note in report.notes)
    config = QuantizationConfig.model_validate(read_config(tmp_path / "out")["quantization_config"])
    tensors = load_file(tmp_path / "out" / "model-00001-of-00001.safetensors")
    read = values(tmp_path / "out")
    for layer, bits in ((0, 4), (1, 8), (2, 4)):
        module = f"model.layers.{layer}.mlp.experts.7.up_proj"
        # As vLLM chooses: the first group with a target that the name fits.
        scheme = next(
            g for g in config.config_groups.values() if any(match_name(module, t) for t in g.targets)
        )
        assert scheme.weights.num_bits == bits
        parts = {n.removeprefix(f"{module}."): t for n, t in tensors.items() if n.startswith(f"{module}.")}
        compressor = BaseCompressor.get_value_from_registry(config.format)
        weight = compressor.decompress(parts, scheme)["weight"].float().numpy()
        assert difference(weight, read[layer, 7, "up"]) < 2**-9
    # It reads all experts by one scheme, and must not run on what it misread.
    with pytest.raises(RuntimeError, match="issues during automatic conversion"):
        in_transformers(tmp_path / "out")


def test_a_layer_with_a_float_is_bf16_and_the_others_are_not(tmp_path):
    plan = BitPlan(ExpertFormats("q4", "q4", "q4"), "q8", {(2, 0): ExpertFormats("q2", "bf16", "q2")})
    _, report = exported(tmp_path, "qwen3", plan, hidden_size=128)
    assert report.expert_types == {0: "w4a16", 1: "w4a16", 2: "bf16"}
    settings = read_config(tmp_path / "out")["quantization_config"]
    ignored = [
        any(match_name(f"model.layers.{n}.mlp.experts.0.up_proj", t) for t in settings["ignore"])
        for n in range(3)
    ]
    assert ignored == [False, False, True]
    assert not any(match_name("model.layers.2.mlp.shared_experts.up_proj", t) for t in settings["ignore"])
    tensors = load_file(tmp_path / "out" / "model-00001-of-00001.safetensors")
    assert tensors["model.layers.2.mlp.experts.3.up_proj.weight"].dtype == torch.bfloat16
    with pytest.raises(RuntimeError, match="issues during automatic conversion"):
        in_transformers(tmp_path / "out")


@pytest.mark.parametrize("type_name", ["w4a16", "w8a16", "bf16"])
def test_one_type_is_for_transformers_too(tmp_path, type_name):
    _, report = exported(tmp_path, "qwen3", MIXED, type_name)
    assert set(report.expert_types.values()) == {type_name}
    assert not report.notes
    settings = read_config(tmp_path / "out").get("quantization_config")
    if type_name == "bf16":
        assert settings is None
    else:
        # One scheme for everything is said as everybody reads it.
        assert [group["targets"] for group in settings["config_groups"].values()] == [["Linear"]]
    logits, lacking = in_transformers(tmp_path / "out")
    assert not lacking
    assert difference(logits, in_engine(tmp_path / "out")) < BF16_PRODUCTS


def test_floats_stay_bf16_and_8_bits_keep_their_codes(tmp_path):
    folder, report = exported(tmp_path, "qwen3", BitPlan.uniform("q8", "bf16"))
    assert set(report.num_matrices) == {"q8 → w8a16", "bf16 → bf16"}
    assert report.rounding["bf16 → bf16"] == 0
    settings = read_config(tmp_path / "out")["quantization_config"]
    assert len(settings["config_groups"]) == 1
    before, after = values(folder), values(tmp_path / "out")
    weight = "layers.1.attention.q.weight"
    assert np.array_equal(after[weight], torch.from_numpy(before[weight]).bfloat16().float().numpy())
    assert difference(after[1, 3, "down"], before[1, 3, "down"]) < CHANGED_BY_8_BITS


@pytest.mark.parametrize(
    ("variation", "message"),
    [
        (
            "gpt-oss",
            "gpt-oss cannot be exported as compressed-tensors: its checkpoints have all experts of a",
        ),
        ("gemma4", "all experts of a layer in one tensor"),
        ("granite", "all experts of a layer in one tensor"),
        ("qwen3.5-nested", "config.json is of a model with towers"),
        ("kimi-linear", "transformers does not load its convolutions"),
    ],
)
def test_families_without_such_a_form_are_refused_before_the_work(tmp_path, variation, message):
    with pytest.raises(UnsupportedModelError, match=message):
        exported(tmp_path, variation, BitPlan.uniform("q8", "q8"))
    assert not list(tmp_path.glob("out*"))


def test_rows_that_are_no_whole_groups_are_refused(tmp_path):
    with pytest.raises(UnsupportedModelError, match="are no whole groups of 32 columns"):
        exported(tmp_path, "qwen3", BitPlan.uniform("q8", "q8"), moe_intermediate_size=40)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    work = tmp_path_factory.mktemp("store")
    return convert(write_checkpoint(work / "hf", "qwen3"), work / "store", BitPlan.uniform("q4", "q8")) and (
        work / "store"
    )


def test_places_that_are_taken_keep_what_they_hold(tmp_path, store):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_bytes(b"mine")
    with pytest.raises(ConversionError, match="exists; choose another place or give --overwrite"):
        export_checkpoint(store, out)
    with pytest.raises(ConversionError, match="is no export of a store, so it is not replaced"):
        export_checkpoint(store, out, overwrite=True)
    # Nor is the checkpoint that a store was made of.
    with pytest.raises(ConversionError, match="is no export of a store"):
        export_checkpoint(store, store.parent / "hf", overwrite=True)
    assert (out / "mine").read_bytes() == b"mine"
    partial = tmp_path / "new.partial"
    partial.mkdir()
    (partial / "mine").write_bytes(b"mine")
    with pytest.raises(ConversionError, match="holds files that no export wrote"):
        export_checkpoint(store, tmp_path / "new")
    assert [path.name for path in partial.iterdir()] == ["mine"]


def test_a_place_that_is_taken_while_the_folder_is_locked_is_refused(tmp_path, store, monkeypatch):
    """At once, rather than when hours of work are to get their name."""
    out = tmp_path / "out"

    def lock_late(folder):
        out.mkdir()
        return lock_folder(folder)

    monkeypatch.setattr("edgemoe.export.shards.lock_folder", lock_late)
    with pytest.raises(ConversionError, match="exists; choose another place or give --overwrite"):
        export_checkpoint(store, out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_export_that_was_killed_at_its_last_step_is_replaced(tmp_path, store):
    export_checkpoint(store, tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "new.partial")  # whole, but for its name
    export_checkpoint(store, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_what_a_killed_export_left_and_an_older_one_are_replaced(tmp_path, store):
    out = tmp_path / "out"
    export_checkpoint(store, out)
    first = (out / "model-00001-of-00001.safetensors").read_bytes()
    partial = tmp_path / "out.partial"
    partial.mkdir()
    (partial / "model-00001-of-00007.safetensors").write_bytes(b"half")
    export_checkpoint(store, out, type_name="w8a16", overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert (out / "model-00001-of-00001.safetensors").read_bytes() != first


def test_damage_and_too_large_a_file_leave_nothing_and_are_one_line(tmp_path, store):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))

    arguments = [store, tmp_path / "out", "--to", "compressed-tensors"]
    command = [sys.executable, "-m", "edgemoe", "export", *arguments]
    full = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert full.returncode == 2
    assert full.stderr.splitlines()[-1].endswith("raise the limit (ulimit -f)")
    shutil.copytree(store, tmp_path / "damaged")
    entry = open_store(store).manifest.experts[1, 3]
    with (tmp_path / "damaged" / entry.file).open("r+b") as file:
        file.seek(entry.offset + 100)
        file.write(b"damage")
    with pytest.raises(CorruptStoreError, match="layer 1 expert 3 at offset"):
        export_checkpoint(tmp_path / "damaged", tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_the_command_reports(tmp_path, store):
    arguments = [store, tmp_path / "out", "--to", "compressed-tensors", "--json"]
    command = [sys.executable, "-m", "edgemoe", "export", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert report["format"] == "compressed-tensors"
    assert report["has_template"]
    assert report["expert_types"] == {"0": "w4a16", "1": "w4a16", "2": "w4a16"}
    assert 0 < report["rounding"]["q8 → w8a16"] < CHANGED_BY_8_BITS
    assert re.search("exporting to out", done.stderr)


def test_a_layer_for_further_tokens_is_left_out_and_said(tmp_path):
    write_mtp_checkpoint(tmp_path / "hf", "glm4")
    convert(tmp_path / "hf", tmp_path / "store", BitPlan.uniform("q4", "q8"))
    report = export_checkpoint(tmp_path / "store", tmp_path / "out")
    assert any("further tokens is left out" in note for note in report.notes)
    _, lacking = in_transformers(tmp_path / "out")
    assert not lacking


def test_a_store_of_a_gguf_file_gets_the_name_that_vllm_goes_by(tmp_path):
    """Such a store's configuration was made from the file's keys, which have no name of a class."""
    folder = write_checkpoint(tmp_path / "hf", "mixtral")
    convert(folder, tmp_path / "f32", BitPlan.uniform("f32", "f32"))
    export_gguf(tmp_path / "f32", tmp_path / "model.gguf")
    convert(tmp_path / "model.gguf", tmp_path / "store", BitPlan.uniform("q8", "q8"))
    report = export_checkpoint(tmp_path / "store", tmp_path / "out")
    assert not report.notes
    assert read_config(tmp_path / "out")["architectures"] == ["MixtralForCausalLM"]
    logits, lacking = in_transformers(tmp_path / "out")
    assert not lacking
    assert difference(logits, in_engine(tmp_path / "out")) < BF16_PRODUCTS
    before, after = values(folder), values(tmp_path / "out")
    assert all(difference(after[name], before[name]) < CHANGED_BY_8_BITS for name in before)


def test_types_and_formats_that_are_not_there_are_refused(tmp_path, store):
    with pytest.raises(RequestError, match="--type q8_0: choose one of w4a16, w8a16, bf16"):
        export_checkpoint(store, tmp_path / "out", type_name="q8_0")
    with pytest.raises(RequestError, match="--to onnx: choose one of gguf, compressed-tensors"):
        edgemoe.ExportOptions(tmp_path / "out", to="onnx")


def test_files_are_bounded_and_a_matrix_stays_in_one():
    groups = [tuple(StoredTensor(f"{i}.{part}", "U8", (40,)) for part in "ab") for i in range(5)]
    groups.append((StoredTensor("large", "U8", (900,)),))
    shards = cut_shards(groups, 200)
    assert [[tensor.name for tensor in shard] for shard in shards] == [
        ["0.a", "0.b", "1.a", "1.b"],
        ["2.a", "2.b", "3.a", "3.b"],
        ["4.a", "4.b"],
        ["large"],
    ]
