"""Stores written as GGUF: the bytes that came from such a file, the same model for everything else."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from itertools import cycle

import gguf
import numpy as np
import pytest

torch = pytest.importorskip("torch")
from gguf import GGMLQuantizationType as Type
from helpers.exact_blocks import EXACT
from helpers.gguf_files import write_gguf
from helpers.gguf_further import write_further_gguf
from helpers.gguf_hybrids import write_hybrid_gguf
from helpers.gguf_mamba import write_mamba_gguf
from helpers.resident import load_resident
from helpers.tiny_models import VOCAB_SIZE, write_checkpoint
from safetensors.torch import load_file, save_file

from edgemoe import native
from edgemoe.checkpoint import open_checkpoint
from edgemoe.convert import convert, plan_as_stored
from edgemoe.errors import ConversionError, CorruptStoreError, RequestError, UnsupportedModelError
from edgemoe.export import export_gguf
from edgemoe.quant import BitPlan, ExpertFormats
from edgemoe.store import open_store
from edgemoe.store.durable import lock_file
from edgemoe.text import Tokenizer

TOKENS = np.random.default_rng(3).integers(0, VOCAB_SIZE, 24).astype(np.int32)
# Rows of 256 columns, as types with that many in a block need.
WIDE = {"hidden_size": 256, "num_hidden_layers": 2, "head_dim": 64}
YARN = {"rope_type": "yarn", "rope_theta": 5000.0, "factor": 4.0, "original_max_position_embeddings": 32}
NEMOTRON = {"layers_block_type": ["linear_attention", "moe", "full_attention", "moe"]}
# One of each kind of difference between what files and stores have: order of rows, shapes, keys.
CHANGES = {
    "nemotron": NEMOTRON,
    "nemotron-latent": {**NEMOTRON, "mlp_bias": False},
    # Rows that packed matrices fill up, and files do not.
    "glm4 odd": {"hidden_size": 72, "moe_intermediate_size": 40},
    "deepseek3 odd": {"hidden_size": 72, "q_lora_rank": 24, "kv_lora_rank": 40, "v_head_dim": 12},
    "qwen3.5 odd": {"hidden_size": 72, "shared_expert_intermediate_size": 24},
    "lfm2 odd": {"hidden_size": 72},
    "gemma4 odd": {"hidden_size": 72, "intermediate_size": 40},
}
VARIATIONS = (
    *("mixtral", "glm4-groups-biases", "granite-shared", "deepseek2", "minimax", "ernie", "hy", "qwen3vl"),
    *("qwen2", "solar", "glm4-lite", "qwen3.5", "qwen3-next", *CHANGES),
)
# Families of which files say more than single keys: the same by a writer that knows nothing of ours.
WRITERS = {
    "lfm2": (write_hybrid_gguf, {}),
    "lfm2 odd": (write_hybrid_gguf, {"hidden_size": 72}),
    "gemma4": (write_hybrid_gguf, {}),
    "granite-hybrid": (write_mamba_gguf, {}),
    "kimi-linear": (write_further_gguf, {"linear_num_heads": 4, "num_shared_experts": 1}),
    "ling3": (write_further_gguf, {"head_dim": 32}),
    "mimo": (write_further_gguf, {}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_checkpoint(
        tmp_path_factory.mktemp("hf") / "qwen3", "qwen3", **WIDE, moe_intermediate_size=256
    )


def tensors(path):
    return {t.name: (t.tensor_type, tuple(t.shape), t.data.tobytes()) for t in gguf.GGUFReader(path).tensors}


def logits(path):
    source = open_checkpoint(path)
    spec, decoder = load_resident(source)
    files = source.files()
    source.close()
    return decoder.head(decoder.forward(TOKENS, spec.new_state(len(TOKENS), "f32"))), files


@pytest.mark.parametrize("variation", ["qwen3", "mixtral"])
def test_a_file_comes_back_byte_for_byte(tmp_path, folder, variation):
    """Every type that is written as held; mixtral stores queries and keys in another order of rows."""
    if variation == "mixtral":
        folder = write_checkpoint(tmp_path / "hf", "mixtral", **WIDE, intermediate_size=256)
    written = [t for t in EXACT if native.written_type(t.name, 256) == t.block_type]
    assert len(written) == len(EXACT)
    kinds = cycle([*(Type[t.block_type] for t in written), Type.F16, Type.BF16, Type.F32])
    chosen: dict[str, Type] = {}
    path = write_gguf(folder, tmp_path / "model.gguf", lambda name: chosen.setdefault(name, next(kinds)))
    convert(path, tmp_path / "store", plan_as_stored(path))
    report = export_gguf(tmp_path / "store", tmp_path / "again.gguf")
    assert tensors(tmp_path / "again.gguf") == tensors(path)
    assert set(report.rounding.values()) == {0.0}
    assert report.num_bytes == (tmp_path / "again.gguf").stat().st_size
    before, after = (gguf.GGUFReader(p).fields for p in (path, tmp_path / "again.gguf"))
    for key in before.keys() - {"GGUF.tensor_count", "GGUF.kv_count"}:
        assert before[key].contents() == after[key].contents(), key


def test_what_columns_in_another_order_change_is_told(tmp_path):
    """Files of delta nets have the heads in another order, so blocks of two heads' columns are made anew."""
    convert(write_checkpoint(tmp_path / "hf", "qwen3.5"), tmp_path / "store", BitPlan.uniform("f32", "q8"))
    report = export_gguf(tmp_path / "store", tmp_path / "model.gguf")
    held = [entry.format for entry in open_store(tmp_path / "store").manifest.dense.values()].count("q8")
    assert report.num_matrices["q8 → Q8_0"] == held
    assert 0 < report.rounding["q8 → Q8_0"] < 0.004  # half a step of 127


@pytest.mark.parametrize("variation", VARIATIONS)
def test_a_folder_becomes_a_file_of_the_same_model(tmp_path, variation):
    """Weights bit for bit and the same logits, read again; the tokenizer gives the same tokens."""
    folder = write_checkpoint(tmp_path / "hf", variation.split()[0], **CHANGES.get(variation, {}))
    convert(folder, tmp_path / "store", BitPlan.uniform("f32", "f32"))
    export_gguf(tmp_path / "store", tmp_path / "model.gguf")
    (theirs, _), (ours, files) = logits(folder), logits(tmp_path / "model.gguf")
    assert np.array_equal(ours, theirs)
    (tmp_path / "read").mkdir()
    for name, data in files.items():
        (tmp_path / "read" / name).write_bytes(data)
    read, stored = (Tokenizer(tmp_path / place, {}) for place in ("read", "store"))
    text = "Once upon a time, 123 grey stones\n\tétait <|im_end|>"
    assert read.encode(text) == stored.encode(text)
    assert read.stop_ids >= stored.stop_ids
    assert read.chat_templates() == stored.chat_templates()


def test_rows_that_are_no_whole_blocks_are_halves(tmp_path):
    """Of latent attention a file has a matrix as three numbers; heads of 24 rows make rows of 24 columns."""
    folder = write_checkpoint(tmp_path / "hf", "deepseek2", qk_nope_head_dim=24)
    convert(folder, tmp_path / "store", BitPlan.uniform("q8", "q8"))
    export_gguf(tmp_path / "store", tmp_path / "model.gguf")
    types = {name: kind for name, (kind, *_) in tensors(tmp_path / "model.gguf").items()}
    assert types["blk.0.attn_k_b.weight"] == Type.F16
    assert types["blk.0.attn_output.weight"] == Type.Q8_0
    (theirs, _), (ours, _) = logits(folder), logits(tmp_path / "model.gguf")
    assert np.linalg.norm(ours - theirs) < 0.05 * np.linalg.norm(theirs)


@pytest.mark.parametrize("variation", WRITERS)
def test_a_file_has_the_tensors_and_keys_that_a_converter_writes(tmp_path, variation):
    write, changes = WRITERS[variation]
    folder = write_checkpoint(tmp_path / "hf", variation.split()[0], **changes)
    convert(folder, tmp_path / "store", BitPlan.uniform("f32", "f32"))
    export_gguf(tmp_path / "store", tmp_path / "model.gguf")
    ours, theirs = tmp_path / "model.gguf", write(folder, tmp_path / "theirs.gguf")
    found, expected = tensors(ours), tensors(theirs)
    assert found.keys() == expected.keys()
    for name, (kind, shape, data) in expected.items():
        assert found[name][0] == kind, name
        assert without_ones(found[name][1]) == without_ones(shape), name
        assert found[name][2] == data, name
    said, wanted = (gguf.GGUFReader(path).fields for path in (ours, theirs))
    for key in wanted.keys() - {"GGUF.kv_count"}:
        assert said[key].contents() == wanted[key].contents(), key
    assert np.array_equal(logits(ours)[0], logits(folder)[0])


def without_ones(shape):
    """A shape without the axes of length 1 that end it, as ggml counts axes."""
    return shape if len(shape) == 1 or shape[-1] != 1 else without_ones(shape[:-1])


def test_widths_of_a_plan_become_types_that_hold_their_codes(tmp_path, folder):
    plan = BitPlan(
        ExpertFormats("q4", "q3", "q6"),
        "q8",
        {(0, 1): ExpertFormats("q4", "q2", "q6"), (1, 0): ExpertFormats("q2", "q3", "bf16")},
    )
    convert(folder, tmp_path / "store", plan)
    report = export_gguf(tmp_path / "store", tmp_path / "model.gguf")
    types = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    stacks = [[types[f"blk.{i}.ffn_{p}_exps.weight"] for p in ("gate", "up", "down")] for i in range(2)]
    # No type holds codes of q4 and of q2; and 16 bits stay 16 bits.
    assert stacks == [["Q4_1", "Q6_K", "Q6_K"], ["Q8_0", "Q6_K", "BF16"]]
    assert types["token_embd.weight"] == "Q8_0"
    assert types["blk.0.ffn_gate_inp.weight"] == "F32"
    assert report.rounding["q8 → Q8_0"] == 0
    assert 0 < report.rounding["q4 → Q4_1"] < 1e-3
    assert max(report.rounding.values()) < 0.01
    assert report.num_matrices["q3 → Q6_K"] == 8 + 7


def test_one_type_may_be_asked_for(tmp_path, folder):
    convert(folder, tmp_path / "store", BitPlan.uniform("q4", "q8"))
    export_gguf(tmp_path / "store", tmp_path / "model.gguf", block_type="f16")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    assert {t.tensor_type.name for t in reader.tensors if "exps" in t.name or "attn_q." in t.name} == {"F16"}
    with pytest.raises(RequestError, match="--type q4_k: choose one of f32, f16, q4_0"):
        export_gguf(tmp_path / "store", tmp_path / "other.gguf", block_type="q4_k")
    assert not list(tmp_path.glob("other*"))


@pytest.mark.parametrize(
    ("variation", "changes", "message"),
    [
        ("qwen3", {"norm_topk_prob": False}, "llama.cpp passes over qwen3moe.expert_weights_norm = False"),
        ("qwen3-next", {"norm_topk_prob": False}, "passes over qwen3next.expert_weights_norm = False"),
        ("mimo", {"routed_scaling_factor": 2.5}, r"passes over mimo2.expert_weights_scale = 2\.5"),
        ("qwen3-llama3", {}, "rope.kind = 'llama3' GGUF files say 'default'"),
        ("phi", {}, "llama.cpp weighs its experts by the softmax over all of them"),
        ("flex-olmo", {}, "no GGUF architecture is known for it"),
        (
            "nemotron",
            {"layers_block_type": ["linear_attention", "moe", "mlp"]},
            "dense networks beside the experts cannot be exported: llama.cpp runs none",
        ),
        (
            "gpt-oss",
            {"swiglu_limit": 7.0, "rope_parameters": {**YARN, "beta_fast": 20.0}},
            "llama.cpp passes over gpt-oss.rope.scaling.yarn_beta_fast = 20.0",
        ),
    ],
)
def test_what_a_file_cannot_say_is_refused_before_the_work(tmp_path, variation, changes, message):
    changes = {"norm_topk_prob": True, **changes} if variation.startswith("qwen3") else changes
    if variation not in ("nemotron", "mimo"):  # which list their layers
        changes["num_hidden_layers"] = 1
    folder = write_checkpoint(tmp_path / "hf", variation, **changes)
    convert(folder, tmp_path / "store", BitPlan.uniform("q8", "q8"))
    with pytest.raises(UnsupportedModelError, match=message):
        export_gguf(tmp_path / "store", tmp_path / "model.gguf")
    assert not list(tmp_path.glob("model*"))


def test_damage_and_places_that_are_taken_leave_no_file(tmp_path, folder):
    convert(folder, tmp_path / "store", BitPlan.uniform("q4", "q8"))
    entry = open_store(tmp_path / "store").manifest.experts[1, 3]
    with (tmp_path / "store" / entry.file).open("r+b") as file:
        file.seek(entry.offset + 100)
        file.write(b"damage")
    with pytest.raises(CorruptStoreError, match="layer 1 expert 3 at offset"):
        export_gguf(tmp_path / "store", tmp_path / "model.gguf")
    assert not list(tmp_path.glob("model*"))
    (tmp_path / "taken.gguf").write_bytes(b"mine")
    with pytest.raises(ConversionError, match="exists; choose another place or give --overwrite"):
        export_gguf(tmp_path / "store", tmp_path / "taken.gguf")
    assert (tmp_path / "taken.gguf").read_bytes() == b"mine"
    with pytest.raises(ConversionError, match="store is no file, so it is not replaced"):
        export_gguf(tmp_path / "store", tmp_path / "store", overwrite=True)


def test_a_link_stays_and_its_file_is_replaced(tmp_path, folder):
    convert(folder, tmp_path / "store", BitPlan.uniform("q4", "q8"))
    (tmp_path / "disk").mkdir()
    link, out = tmp_path / "link.gguf", tmp_path / "disk" / "model.gguf"
    link.symlink_to(out)
    for overwrite in (False, True):  # what it leads to is there the second time
        export_gguf(tmp_path / "store", link, overwrite=overwrite)
        assert link.is_symlink()
        assert [path.name for path in out.parent.iterdir()] == [out.name]
    export_gguf(tmp_path / "store", tmp_path / "plain.gguf")
    assert out.read_bytes() == (tmp_path / "plain.gguf").read_bytes()


def test_two_exports_to_one_place_do_not_mix(tmp_path, folder):
    """The second stops, and leaves alone what the first writes; what a killed one left is no obstacle."""
    convert(folder, tmp_path / "store", BitPlan.uniform("q4", "q8"))
    out, partial = tmp_path / "model.gguf", tmp_path / "model.gguf.partial"
    seen = []

    def second(*_):
        if not seen:
            content = partial.read_bytes()
            with pytest.raises(ConversionError, match=r"model\.gguf\.partial: another process is writing it"):
                export_gguf(tmp_path / "store", out, block_type="f16", overwrite=True)
            seen.append(partial.read_bytes() == content)

    partial.write_bytes(b"what a kill has left")
    export_gguf(tmp_path / "store", out, progress=second)
    assert seen == [True]
    assert {path.name for path in tmp_path.iterdir()} == {"store", "model.gguf"}
    export_gguf(tmp_path / "store", tmp_path / "other.gguf")
    assert out.read_bytes() == (tmp_path / "other.gguf").read_bytes()


def test_a_place_that_is_taken_meanwhile_is_not_replaced(tmp_path, folder, monkeypatch):
    convert(folder, tmp_path / "store", BitPlan.uniform("q4", "q8"))
    out = tmp_path / "model.gguf"

    def lock_late(path):
        out.write_bytes(b"another was faster")
        return lock_file(path)

    monkeypatch.setattr("edgemoe.export.gguf_file.lock_file", lock_late)
    with pytest.raises(ConversionError, match="exists; choose another place or give --overwrite"):
        export_gguf(tmp_path / "store", out)
    assert out.read_bytes() == b"another was faster"
    assert {path.name for path in tmp_path.iterdir()} == {"store", "model.gguf"}


def test_the_command_reports_and_too_large_a_file_is_one_line(tmp_path, folder):
    convert(folder, tmp_path / "store", BitPlan.uniform("q8", "q8"))

    def run(out, **options):
        command = [sys.executable, "-m", "edgemoe", "export", tmp_path / "store", tmp_path / out, "--json"]
        return subprocess.run(command, capture_output=True, text=True, check=False, **options)

    report = json.loads(run("model.gguf").stdout)
    assert report["architecture"] == "qwen3moe"
    assert report["splitting"] == "gpt-2"
    assert report["has_template"]
    assert report["num_bytes"] == (tmp_path / "model.gguf").stat().st_size

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    full = run("other.gguf", preexec_fn=limit)
    assert full.returncode == 2
    assert full.stderr.splitlines()[-1].endswith("raise the limit (ulimit -f)")
    assert not list(tmp_path.glob("other*"))


def test_factors_of_nvfp4_go_along_where_llama_cpp_heeds_them(tmp_path):
    """Experts keep their bytes, with a number each; attention, for which there is none, is rounded."""
    parts = in_nvfp4_parts(write_checkpoint(tmp_path / "hf", "qwen3", **WIDE, moe_intermediate_size=64))
    convert(parts, tmp_path / "store", plan_as_stored(parts))
    report = export_gguf(tmp_path / "store", tmp_path / "model.gguf")
    found = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert (found["blk.1.ffn_up_exps.weight"], found["blk.1.ffn_up_exps.scale"]) == ("NVFP4", "F32")
    assert found["blk.1.attn_q.weight"] == "Q8_0"
    assert report.num_tensors == len(found)
    assert report.rounding["nvfp4 → NVFP4"] == 0
    convert(tmp_path / "model.gguf", tmp_path / "again", plan_as_stored(tmp_path / "model.gguf"))
    stores = [open_store(tmp_path / name).manifest.experts for name in ("store", "again")]
    assert [e.checksum for e in stores[0].values()] == [e.checksum for e in stores[1].values()]
    export_gguf(tmp_path / "again", tmp_path / "model2.gguf")
    assert tensors(tmp_path / "model2.gguf") == tensors(tmp_path / "model.gguf")


def in_nvfp4_parts(folder):
    """A folder whose experts and queries are rewritten in modelopt's NVFP4."""
    stored = load_file(folder / "model.safetensors")
    rng = np.random.default_rng(4)
    for name in [n for n in stored if ".experts." in n or "q_proj.weight" in n]:
        rows, cols = stored[name].shape
        stored[name] = torch.from_numpy(rng.integers(0, 256, (rows, cols // 2), np.uint8))
        scales = rng.integers(32, 64, (rows, cols // 16), np.uint8)
        stored[f"{name}_scale"] = torch.from_numpy(scales).view(torch.float8_e4m3fn)
        stored[f"{name}_scale_2"] = torch.tensor(rng.uniform(0.05, 0.1), dtype=torch.float32)
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "modelopt", "quant_algo": "NVFP4"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
