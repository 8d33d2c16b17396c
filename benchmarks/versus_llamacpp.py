"""The race: llama.cpp and EdgeMoE on the same weights, machine, threads, token ids and memory cap.

    python benchmarks/make_model.py --like olmoe-1b-7b olmoe.gguf
    python benchmarks/versus_llamacpp.py olmoe.gguf --caps none,75%,50%,30% -o docs/race.json

Caps are shares of the GGUF file. Every run is a process of its own in a memory cgroup of the cap (page cache
counts, swap is off), after the page cache has been dropped and the machine has rested; engines take turns,
round by round. llama.cpp maps the file, as it does by default; without a cap it also runs with its weights
repacked, which needs them all in memory. EdgeMoE runs the store that `edgemoe convert` makes of the same
file, at the widths it has there; further stores (``--store NAME=FOLDER``) may run beside it.

Speed of decoding is that of the last half of the tokens, when the caches are warm; the speed of a prompt is
that of a second one, read after them; the time to the first token counts from loading. Before racing, the
engines compute the logits of 256 positions, which must agree within the error of the formats.

`python benchmarks/race_report.py docs/race.json` makes the table and picture of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from make_model import token_chain
from memory_cgroup import CgroupUnavailable, drop_caches, run_capped
from race_report import table

from edgemoe.convert import convert, plan_as_stored

AGREEMENT_TOKENS = 256
# Weights rounded once more and activations rounded to 8 bits in both engines, over all layers.
AGREEMENT_BOUND = 0.15
UNCAPPED = "none"
_NO_LIMIT = 1 << 40
# A virtual machine gives what the run before has freed back to its host, at the cost of whoever runs
# meanwhile: single tokens took 50 to 120 ms instead of 22.
_REST_S = 6
# What the process of a cap needs besides its budget: files that the loader maps, page tables.
_MARGIN = 0.97


@dataclass(frozen=True)
class Entry:
    """One way of running: its name in tables and its command after the interpreter."""

    name: str
    arguments: Sequence[str]
    only_uncapped: bool = False


def entries(model: Path, stores: dict[str, Path]) -> list[Entry]:
    rivals = [
        Entry("llama.cpp", ("llama.cpp", str(model))),
        Entry("llama.cpp, repacked", ("llama.cpp", str(model), "--repack"), only_uncapped=True),
    ]
    return rivals + [Entry(name, ("edgemoe", str(store))) for name, store in stores.items()]


def command(entry: Entry, ids: Path, *options: str) -> list[str]:
    engine, model, *rest = entry.arguments
    script = str(Path(__file__).with_name("race_entrant.py"))
    return [sys.executable, script, engine, model, str(ids), *rest, *options]


def write_ids(path: Path, num_prompt: int, num_rest: int, seed: int) -> Path:
    ids = token_chain(num_prompt + num_rest, seed)
    other = token_chain(num_prompt, seed + 1000)
    path.write_text(json.dumps({"prompt": ids[:num_prompt], "rest": ids[num_prompt:], "other": other}))
    return path


def agreement(rivals: Sequence[Entry], folder: Path) -> dict[str, Any]:
    """How far the logits of all entries are from those of the first."""
    ids = write_ids(folder / "agreement.json", AGREEMENT_TOKENS, 0, seed=99)
    found: dict[str, Any] = {}
    first: np.ndarray | None = None
    for entry in rivals:
        file = folder / "logits.npy"
        subprocess.run(command(entry, ids, "--logits", str(file)), check=True)
        logits = np.load(file)
        if first is None:
            first = logits
            continue
        errors = np.linalg.norm(logits - first, axis=1) / np.linalg.norm(first, axis=1)
        same = float((logits.argmax(1) == first.argmax(1)).mean())
        found[entry.name] = {"median_relative_error": float(np.median(errors)), "same_top_1": same}
    return found


def race(entry: Entry, ids: Path, cap_bytes: int | None, seconds: float) -> dict[str, Any]:
    """One run; what went wrong is part of the result."""
    drop_caches()
    time.sleep(_REST_S)
    options = ["--seconds", str(seconds)]
    if entry.arguments[0] == "edgemoe" and cap_bytes is not None:
        options += ["--memory", str(int(cap_bytes * _MARGIN))]
    run = run_capped(command(entry, ids, *options), cap_bytes or _NO_LIMIT)
    if run.exit_code:
        why = "out of memory" if run.num_oom_kills else run.stderr.strip().splitlines()[-1:]
        return {"failed": str(why), "peak_bytes": run.peak_bytes}
    record = json.loads(run.stdout)
    steps = record.pop("step_s")
    warm = steps[len(steps) // 2 :]
    return {
        **record,
        "decode_tokens": len(steps),
        "decode_per_s": len(warm) / sum(warm),
        "prefill_per_s": record["prefill_tokens"] / record["prefill_s"],
        "bytes_per_token": record["decode_bytes_read"] / len(steps),
        "peak_bytes": run.peak_bytes,
    }


def summarize(name: str, cap: str, cap_bytes: int | None, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    whole = [run for run in runs if "failed" not in run]
    record: dict[str, Any] = {"engine": name, "cap": cap, "cap_bytes": cap_bytes, "rounds": len(whole)}
    if not whole:
        return {**record, "failed": runs[0]["failed"], "peak_bytes": runs[0]["peak_bytes"]}
    for key in ("decode_per_s", "prefill_per_s", "first_token_s", "bytes_per_token", "hit_share"):
        values = [run[key] for run in whole if key in run]
        if values:
            record[key] = statistics.median(values)
    decode = [run["decode_per_s"] for run in whole]
    record["decode_range"] = [min(decode), max(decode)]
    record["peak_bytes"] = max(run["peak_bytes"] for run in whole)
    return record


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="GGUF file")
    parser.add_argument("--store", action="append", default=[], metavar="NAME=FOLDER", help="further stores")
    parser.add_argument("--caps", default="none,75%,50%,30%")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=128, help="decoded one by one, at most")
    parser.add_argument("--seconds", type=float, default=40, help="stop decoding after so long")
    parser.add_argument("--out", "-o", type=Path)
    args = parser.parse_args()
    own = args.model.with_suffix(".store")
    if not own.exists():
        print(f"converting to {own}", file=sys.stderr)
        convert(args.model, own, plan_as_stored(args.model))
    stores = {"EdgeMoE": own}
    stores.update((name, Path(folder)) for name, _, folder in (text.partition("=") for text in args.store))
    field = entries(args.model, stores)
    file_bytes = args.model.stat().st_size
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        agreed = agreement([e for e in field if not e.only_uncapped], folder)
        for engine, record in agreed.items():
            print(
                f"{engine}: logits differ from llama.cpp's by {record['median_relative_error']:.1%}"
                f" (median of {AGREEMENT_TOKENS} positions, bound {AGREEMENT_BOUND:.0%}),"
                f" same first choice at {record['same_top_1']:.1%}"
            )
        rows = []
        for cap in args.caps.split(","):
            cap_bytes = None if cap == UNCAPPED else int(float(cap.strip("%")) / 100 * file_bytes)
            running = [e for e in field if cap_bytes is None or not e.only_uncapped]
            runs: dict[str, list[dict[str, Any]]] = {entry.name: [] for entry in running}
            for turn in range(args.rounds):
                ids = write_ids(folder / "ids.json", args.prompt_tokens, args.tokens, seed=turn)
                for entry in running:
                    print(f"cap {cap}, round {turn + 1}: {entry.name}", file=sys.stderr)
                    runs[entry.name].append(race(entry, ids, cap_bytes, args.seconds))
            rows += [summarize(e.name, cap, cap_bytes, runs[e.name]) for e in running]
    print("\n".join(table(rows)))
    record = {
        "benchmark": "versus_llamacpp",
        "model": args.model.name,
        "file_bytes": file_bytes,
        "agreement": agreed,
        "rows": rows,
    }
    print(json.dumps(record))
    if args.out:
        args.out.write_text(json.dumps(record, indent=1))
    if any(r["median_relative_error"] > AGREEMENT_BOUND for r in agreed.values() if r is agreed["EdgeMoE"]):
        sys.exit("the engines disagree: the race says nothing")


if __name__ == "__main__":
    try:
        main()
    except CgroupUnavailable as reason:
        sys.exit(f"skipped: {reason}")
