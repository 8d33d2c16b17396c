"""What is fuzzed: a sound file of every kind that EdgeMoE reads, how it is damaged, and its reader.

A target makes its seeds once in a folder; ``damage`` writes one damaged variant into another; ``read`` must
return or raise an error of ours.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fuzz.mutations import mutate_bytes, mutate_json
from golden.make_store import FOLDER as GOLDEN
from helpers.chains import chain_weights, write_chain
from reports.published_configs import PUBLISHED_MORE
from reports.test_configs import PUBLISHED, TOOLS

import edgemoe
from edgemoe.calib.trace import read_trace, record_trace
from edgemoe.calib.widths.calibration import read_facts
from edgemoe.calib.widths.measurements import read_values
from edgemoe.checkpoint import MemoryCheckpoint
from edgemoe.convert import convert, estimate
from edgemoe.engine.loading import LoadOptions, load_engine
from edgemoe.experts.fitted import read_fitted
from edgemoe.models import read_spec
from edgemoe.models.families import family_of
from edgemoe.quant import BitPlan, read_plan
from edgemoe.store import attach_file, checksum, open_store
from edgemoe.store.journal import Journal
from edgemoe.text import Tokenizer

Change = Callable[[bytes, random.Random], bytes]
EXACT = BitPlan.uniform("f32", "f32")


@dataclass(frozen=True)
class Target:
    """One kind of file. ``seed(folder)`` writes sound files; of those in ``changes`` one is damaged."""

    seed: Callable[[Path], None]
    changes: dict[str, Change]
    read: Callable[[Path], object]
    # Put in order after a file was damaged: a checksum of it, for a reader that looks behind that.
    mend: Callable[[Path], None] = lambda folder: None

    def damage(self, seeds: Path, out: Path, rng: random.Random) -> None:
        """One damaged variant of the seeds, in a new folder."""
        shutil.copytree(seeds, out)
        name = rng.choice(sorted(self.changes))
        path = rng.choice(sorted(out.glob(name)))
        path.write_bytes(self.changes[name](path.read_bytes(), rng))
        self.mend(out)


def _seed_configs(folder: Path) -> None:
    for number, config in enumerate((*PUBLISHED.values(), *PUBLISHED_MORE.values())):
        (folder / f"{number}.json").write_text(json.dumps(config))
    every = {**next(iter(PUBLISHED.values())), **TOOLS["transformers 4, all defaults"]}
    (folder / "defaults.json").write_text(json.dumps(every))


def _read_configs(folder: Path) -> None:
    """The one that was damaged, which is the newest."""
    from edgemoe.checkpoint.stand_ins import read_json

    read_spec(read_json(max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)))


def _seed_store(folder: Path) -> None:
    shutil.copytree(GOLDEN, folder, dirs_exist_ok=True)


def _mend_store(folder: Path) -> None:
    """A store that is odd but agrees with itself: its manifest has the checksums of what was changed."""
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
        manifest = json.loads((folder / "edgemoe.json").read_bytes())
        data = (folder / "config.json").read_bytes()
        manifest["files"]["config.json"], manifest["checksums"]["config.json"] = len(data), checksum(data)
        manifest.pop("checksum", None)
        (folder / "edgemoe.json").write_text(json.dumps(manifest))


def _run_store(folder: Path) -> None:
    options = LoadOptions(budget_bytes=2 << 30, context=8, cache_bytes=1 << 20)
    engine = load_engine(open_store(folder), options)
    try:
        engine.session.prefill([1, 2, 3])
    finally:
        engine.close()


def _mutate_header(data: bytes, rng: random.Random) -> bytes:
    """The JSON of a safetensors header, its length put right; sometimes any bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    (length,) = struct.unpack("<Q", data[:8])
    header = mutate_json(data[8 : 8 + length], rng)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def _seed_torch(folder: Path) -> None:
    import torch

    write_chain(folder)
    torch.save({n: torch.from_numpy(t) for n, t in chain_weights().items()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _mutate_pickle(data: bytes, rng: random.Random) -> bytes:
    """The program inside the archive, whose checksums are made anew; sometimes the archive itself."""
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(("data.pkl", "byteorder")) and rng.random() < 0.8:
                content = mutate_bytes(content, rng) if rng.random() < 0.9 else _bomb(rng)
            kind = zipfile.ZIP_DEFLATED if rng.random() < 0.01 else zipfile.ZIP_STORED
            new.writestr(name, content, kind)
    return out.getvalue()


def _bomb(rng: random.Random) -> bytes:
    return rng.choice(
        (
            b"\x80\x02}r" + struct.pack("<I", 1 << 28) + b".",
            b"\x80\x02" + b"(" * 100_000 + b".",
            b"\x80\x02)" + b"\x85" * 200_000 + b"K\x01s.",
            b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",
            pickle.dumps([[[{}]]] * 999),
        )
    )


def _seed_folder(folder: Path) -> None:
    write_chain(folder)
    (folder / "generation_config.json").write_text('{"temperature": 0.5, "eos_token_id": [1, 2]}')
    weights = dict.fromkeys(chain_weights(), "model.safetensors")
    (folder / "other.index.json").write_text(json.dumps({"weight_map": weights}))


def _seed_gguf(folder: Path) -> None:
    from helpers.gguf_files import write_gguf
    from helpers.tiny_models import write_checkpoint

    write_gguf(write_checkpoint(folder.with_name("for-gguf"), "qwen3"), folder / "model.gguf")


def _seed_text(folder: Path) -> None:
    from helpers.tiny_models import write_checkpoint

    made = write_checkpoint(folder.with_name("for-text"), "qwen3")
    for path in made.iterdir():
        if "token" in path.name or path.suffix == ".jinja":
            shutil.copy(path, folder)
    if not (folder / "chat_template.jinja").exists():
        template = "{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}"
        (folder / "chat_template.jinja").write_text(template)


def _read_text(folder: Path) -> None:
    tokenizer = Tokenizer(folder, {"eos_token_id": 0})
    tokenizer.decode(tokenizer.encode("a text of words"))
    tokenizer.encode_chat([{"role": "user", "content": "?"}])


def _seed_fitted(folder: Path) -> None:
    shutil.copytree(Path(edgemoe.__file__).parent / "demo_store", folder, dirs_exist_ok=True)
    store = open_store(folder)
    (name,) = (f for f in store.manifest.files if f.startswith("predictor-"))
    shutil.copy(folder / name, folder / "fitted.bin")


def _read_fitted(folder: Path) -> None:
    read_fitted(
        attach_file(open_store(folder), "predictor", ".safetensors", (folder / "fitted.bin").read_bytes())
    )


def _seed_trace(folder: Path) -> None:
    store = folder.with_name("for-trace")
    convert(write_chain(folder.with_name("chain")), store, EXACT)
    engine = load_engine(open_store(store), LoadOptions(budget_bytes=2 << 30, context=16, predictor="none"))
    try:
        record_trace(engine, {"text": list(range(40))}, folder / "trace")
    finally:
        engine.close()
    for path in (folder / "trace").iterdir():
        shutil.move(path, folder)
    (folder / "trace").rmdir()


def _read_trace(folder: Path) -> None:
    from edgemoe.calib.widths.inputs import TraceInputs

    trace = read_trace(folder).of_steps()
    TraceInputs(trace).rows(trace.catalog.layers[0], 0)


def _seed_profile(folder: Path) -> None:
    (folder / "profile.json").write_text('{"window": 8, "dense": "q8", "windows": [[1, 2, 3], [4]]}')
    (folder / "measured.jsonl").write_bytes(b'{"identity": "x"}\n{"a": 1.5, "b": 2.5}\n{"c": 3.5}\n')
    (folder / "journal.jsonl").write_bytes(b'{"identity": "x"}\n{"name": "a", "checksum": "b"}\n')
    (folder / "plan.json").write_text(json.dumps(BitPlan.uniform("q4", "q8").to_json()))


def _read_profile(folder: Path) -> None:
    read_values(folder / "measured.jsonl")
    Journal(folder / "journal.jsonl", "x").close()
    read_plan(folder / "plan.json")
    read_facts(folder)


# Values at the edges of what a model can be; each must be refused, or run.
_ODD = {
    "hidden_size": (32, 64, 96, 544), "num_attention_heads": (1, 2, 3, 4, 33), "head_dim": (2, 6, 34, 200),
    "num_key_value_heads": (1, 2, 3, 4, 33), "num_hidden_layers": (1, 2, 5), "num_experts": (1, 2, 7, 33),
    "num_local_experts": (1, 2, 7, 33), "num_experts_per_tok": (1, 2, 7, 33), "vocab_size": (4, 33, 320),
    "moe_intermediate_size": (32, 64, 160), "intermediate_size": (32, 96, 160), "sliding_window": (1, 2, 9),
    "use_sliding_window": (True, False), "max_window_layers": (0, 1), "decoder_sparse_step": (1, 2, 3),
    "mlp_only_layers": ([0], [1], [0, 1]), "max_position_embeddings": (1, 2, 9),
    "rope_theta": (1.0, 1e-3, 1e9), "rms_norm_eps": (0.0, 0.9), "clip_qkv": (1e-6, 1e6),
    "attention_bias": (True,), "qkv_bias": (True, False), "shared_expert_intermediate_size": (32, 96),
    "tie_word_embeddings": (True, False), "norm_topk_prob": (True, False),
    "hidden_act": ("gelu", "relu", "silu"), "partial_rotary_factor": (0.5,),
    "rope_scaling": (
        {"type": "linear", "factor": 4.0}, {"type": "dynamic", "factor": 8.0},
        {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1},
    ),
}  # fmt: skip


def _mutate_oddly(data: bytes, rng: random.Random) -> bytes:
    config = json.loads(data)
    for key in rng.sample(sorted(_ODD), rng.randrange(1, 9)):
        config[key] = rng.choice(_ODD[key])
    return json.dumps(config).encode()


def _seed_odd(folder: Path) -> None:
    config = dict(PUBLISHED["Qwen3-30B-A3B"], hidden_size=64, head_dim=16, moe_intermediate_size=32)
    for name, base in (*PUBLISHED.items(), ("small", config)):
        (folder / f"{name}.json").write_text(json.dumps({**base, "max_position_embeddings": 16}))


def _run_odd(folder: Path) -> None:
    """A model that agrees with its odd configuration, converted and run: compiled code must hold."""
    path = min(folder.glob("*.json"), key=lambda path: -path.stat().st_mtime_ns)
    config = json.loads(path.read_bytes())
    spec = read_spec(config)
    names, rng = family_of(spec).names, np.random.default_rng(0)
    tensors = {}
    for tensor in spec.dense_tensors():
        shape = tensor.source_shape or tensor.shape
        tensors[next(names.dense(spec, tensor.name)).name] = rng.standard_normal(shape).astype(np.float32)
    for layer, expert in spec.experts():
        for projection, shape in spec.expert_shapes(layer).items():
            name = next(names.expert(spec, layer, expert, projection)).name
            tensors[name] = rng.standard_normal(shape).astype(np.float32)
    convert(MemoryCheckpoint(config, tensors), folder / "store", BitPlan.uniform("q4", "q8"))
    options = LoadOptions(budget_bytes=2 << 30, context=min(8, spec.max_context), cache_bytes=1 << 20)
    engine = load_engine(open_store(folder / "store"), options)
    try:
        engine.session.prefill([1, 2, 3, 0, 2][: options.context])
    finally:
        engine.close()


TARGETS = {
    "config": Target(_seed_configs, {"*.json": mutate_json}, _read_configs),
    "store": Target(
        _seed_store, {"edgemoe.json": mutate_json, "config.json": mutate_json}, _run_store, _mend_store
    ),
    "odd": Target(_seed_odd, {"*.json": _mutate_oddly}, _run_odd),
    "safetensors": Target(
        _seed_folder,
        {"model.safetensors": _mutate_header, "*_config.json": mutate_json},
        lambda folder: estimate(folder, EXACT),
    ),
    "torch": Target(_seed_torch, {"pytorch_model.bin": _mutate_pickle}, lambda f: estimate(f, EXACT)),
    "gguf": Target(
        _seed_gguf, {"model.gguf": mutate_bytes}, lambda folder: estimate(folder / "model.gguf", EXACT)
    ),
    "text": Target(_seed_text, {"*.json": mutate_json, "chat_template.jinja": mutate_bytes}, _read_text),
    "predictor": Target(_seed_fitted, {"fitted.bin": _mutate_header}, _read_fitted),
    "trace": Target(_seed_trace, {"trace.json": mutate_json, "*.npy": mutate_bytes}, _read_trace),
    "profile": Target(_seed_profile, {"*": mutate_bytes, "p*.json": mutate_json}, _read_profile),
}
