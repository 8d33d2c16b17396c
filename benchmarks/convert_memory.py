"""Peak memory of converting a checkpoint that is far larger than the memory allowed.

    python benchmarks/convert_memory.py [--layers 3] [--bits 4] [--limit 600MiB] [--folder DIR]

Makes a checkpoint of random bf16 weights with the matrices of Qwen3-30B-A3B but few layers (about 4.9 GB
with three), converts it in a process of its own inside a memory cgroup as large as the limit, prints a
card and one line of JSON, and removes its files. Exit status 1 if the limit did not hold.
Without the right to make a cgroup it says so and judges by the process's own peak alone.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from memory_cgroup import MemoryCgroup

from edgemoe.models import find_sources, read_spec
from edgemoe.units import MIB, format_duration, format_size, parse_size

CONFIG: dict[str, Any] = {
    "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "hidden_size": 2048,
    "moe_intermediate_size": 768, "intermediate_size": 6144, "num_experts": 128,
    "num_experts_per_tok": 8, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
    "vocab_size": 151936, "norm_topk_prob": True, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
    "max_position_embeddings": 40960, "tie_word_embeddings": False, "hidden_act": "silu",
}  # fmt: skip
SHARD_BYTES = 2 * 1024**3
# Values drawn at a time, so that making the weights does not need the memory that converting must not.
CHUNK = 1 << 22

# VmHWM and not ru_maxrss: the latter is inherited from the process that started this one.
CHILD = """
import json, pathlib, re, sys, time
from edgemoe.convert import convert
from edgemoe.quant import BitPlan, format_for_bits
plan = BitPlan.uniform(format_for_bits(sys.argv[3]), format_for_bits(sys.argv[4]))
report = convert(sys.argv[1], sys.argv[2], plan)
peak = re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())
print(json.dumps({**report.to_json(), "peak_rss_bytes": int(peak[1]) * 1024}))
"""


def tensor_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor of a checkpoint of this configuration, under its Hugging Face name."""
    width, head = config["hidden_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    inner, vocab = config["moe_intermediate_size"], config["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, width)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        for name, rows in (("q", q), ("k", kv), ("v", kv)):
            shapes[f"{prefix}.self_attn.{name}_proj.weight"] = (rows, width)
        shapes[f"{prefix}.self_attn.o_proj.weight"] = (width, q)
        for name in ("q_norm", "k_norm"):
            shapes[f"{prefix}.self_attn.{name}.weight"] = (head,)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{prefix}.{name}.weight"] = (width,)
        shapes[f"{prefix}.mlp.gate.weight"] = (config["num_experts"], width)
        for expert in range(config["num_experts"]):
            for name, shape in (("gate", (inner, width)), ("up", (inner, width)), ("down", (width, inner))):
                shapes[f"{prefix}.mlp.experts.{expert}.{name}_proj.weight"] = shape
    shapes["model.norm.weight"] = (width,)
    shapes["lm_head.weight"] = (vocab, width)
    return shapes


def write_checkpoint(folder: Path, num_layers: int) -> int:
    """Write random weights shard by shard; returns their bytes."""
    config = {**CONFIG, "num_hidden_layers": num_layers}
    shapes = tensor_shapes(config)
    find_sources(read_spec(config), shapes)  # a wrong name fails here, not after the writing
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(0)
    weight_map = {}
    for number, shard in enumerate(_shards(shapes)):
        file = f"model-{number:05d}.safetensors"
        _write_shard(folder / file, shard, rng)
        weight_map.update(dict.fromkeys(shard, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return sum(2 * int(np.prod(shape)) for shape in shapes.values())


def _shards(shapes: dict[str, tuple[int, ...]]) -> Iterator[dict[str, tuple[int, ...]]]:
    shard: dict[str, tuple[int, ...]] = {}
    num_bytes = 0
    for name, shape in shapes.items():
        shard[name] = shape
        num_bytes += 2 * int(np.prod(shape))
        if num_bytes >= SHARD_BYTES:
            yield shard
            shard, num_bytes = {}, 0
    if shard:
        yield shard


def _write_shard(path: Path, shapes: dict[str, tuple[int, ...]], rng: np.random.Generator) -> None:
    header, offset = {}, 0
    for name, shape in shapes.items():
        end = offset + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            left = int(np.prod(shape))
            while left:
                count = min(left, CHUNK)
                values = rng.standard_normal(count, np.float32) * np.float32(0.02)
                file.write((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())
                left -= count


def convert_in_cgroup(arguments: list[str], limit_bytes: int) -> dict[str, Any]:
    """Run the conversion in a process of its own; its report with what the cgroup saw."""
    command = [sys.executable, "-c", CHILD, *arguments]
    try:
        group = MemoryCgroup.create(limit_bytes)
    except OSError as error:
        print(f"no cgroup: {error}; only the process's own peak is judged", file=sys.stderr)
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return {**json.loads(done.stdout), "cgroup": None}
    with group:
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, preexec_fn=group.enter)
        seen = {
            "cgroup": f"v{group.version}",
            "cgroup_peak_bytes": group.peak_num_bytes(),
            "num_oom_kills": group.num_oom_kills(),
        }
    if done.returncode:
        raise SystemExit(f"the conversion failed with status {done.returncode}; {seen}")
    return {**json.loads(done.stdout), **seen}


def print_card(result: dict[str, Any]) -> None:
    """The result for people."""
    speed = result["checkpoint_bytes"] / result["elapsed_s"]
    print(f"checkpoint   {format_size(result['checkpoint_bytes']):>12}   bf16, Qwen3-30B-A3B matrices")
    print(
        f"store        {format_size(result['num_bytes']):>12}   {result['bits']} bits, dense {result['dense_bits']}"
    )
    print(f"time         {format_duration(result['elapsed_s']):>12}   {format_size(speed)}/s read")
    print(
        f"peak RSS     {format_size(result['peak_rss_bytes']):>12}   limit {format_size(result['limit_bytes'])}"
    )
    if result["cgroup"]:
        kills = result["num_oom_kills"]
        print(f"cgroup {result['cgroup']}   held at the limit, page cache included; OOM kills: {kills}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--bits", default="4")
    parser.add_argument("--dense-bits", default="8")
    parser.add_argument("--limit", type=parse_size, default=600 * MIB)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where to make the files; default: temporary"
    )
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="edgemoe-convert-", dir=options.folder))
    try:
        started = time.monotonic()
        num_bytes = write_checkpoint(folder / "checkpoint", options.layers)
        print(
            f"made {format_size(num_bytes)} in {format_duration(time.monotonic() - started)}", file=sys.stderr
        )
        paths = [str(folder / "checkpoint"), str(folder / "store")]
        result = convert_in_cgroup([*paths, options.bits, options.dense_bits], options.limit)
    finally:
        shutil.rmtree(folder)
    result.update(
        benchmark="convert_memory", bits=options.bits, dense_bits=options.dense_bits,
        limit_bytes=options.limit, checkpoint_bytes=num_bytes,
    )  # fmt: skip
    del result["path"]
    print_card(result)
    print(json.dumps(result))
    return int(result["peak_rss_bytes"] > options.limit)


if __name__ == "__main__":
    sys.exit(main())
