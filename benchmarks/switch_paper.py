"""A Switch store run in the paper's ways (arXiv 2308.14352, Figs. 9-12) on slowed-down storage.

    python benchmarks/switch_paper.py --text FILE --device rpi4-sd Q8_STORE Q4_STORE Q3_STORE > one.jsonl
    python benchmarks/switch_paper.py --text FILE --device rpi4-sd Q3_STORE > other.jsonl
    python benchmarks/switch_paper.py --table one.jsonl other.jsonl

The prompt is the first half of the text's tokens, the answer the second half, followed token by token; its
time is that of an output token. Only storage is slowed down: computing is this machine's.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgemoe.bench import Measurement, Tests, mode_options, run_mode
from edgemoe.store import Store, find_device, open_store
from edgemoe.text import Tokenizer
from edgemoe.units import MIB

# The paper's expert buffer: ten experts; as it keeps them in single precision, this many bytes.
BUFFER_EXPERTS, BUFFER_BYTES = 10, 10 * 2 * 768 * 3072 * 4
# Layers read whole take so long on a memory card that few tokens must do.
SWAP_TOKENS = 16


@dataclass(frozen=True)
class Way:
    """One row: which store (by its place on the command line), in which mode, with how large a cache."""

    name: str
    store: int
    mode: str
    cache: str = ""


WAYS = (
    Way("IO-QFREE: all in memory, 8 bits", 0, "resident"),
    Way("IO-EXP: on demand, 8 bits", 0, "on-demand"),
    Way("IO-QEXP: on demand, 4 bits", 1, "on-demand"),
    Way("layers swapped, 4 bits", 1, "swap"),
    Way("3 bits, on demand", 2, "on-demand"),
    Way("3 bits, cache of 10 experts", 2, "cache", "experts"),
    Way("3 bits, cache of 10 experts, read ahead", 2, "full", "experts"),
    Way("3 bits, cache of the paper's bytes, read ahead", 2, "full", "bytes"),
)


def run(stores: Sequence[Store], device: str, text: Path, num_tokens: int, only: str) -> Iterator[dict]:
    """Measure the chosen ways."""
    tokenizer = Tokenizer(stores[0].path, stores[0].config)
    token_ids = tokenizer.encode(text.read_text(encoding="utf-8")[: 32 * num_tokens])[:num_tokens]
    ways = WAYS if len(stores) == 3 else [replace(way, store=0) for way in WAYS if way.store == 2]
    for way in ways:
        if only and way.mode not in only.split(","):
            continue
        store = stores[way.store]
        largest = max(entry.num_bytes for entry in store.manifest.experts.values())
        cache = {"experts": BUFFER_EXPERTS * largest, "bytes": BUFFER_BYTES}.get(way.cache)
        options = mode_options(way.mode, store, None, cache, find_device(device))
        options = replace(options, context=512)
        tests = Tests(0, 0, token_ids[: SWAP_TOKENS if way.mode == "swap" else None], 1)
        yield row(way.name, device, store, run_mode(store, way.mode, options, tests)[0])


def row(name: str, device: str, store: Store, measured: Measurement) -> dict:
    """One line of the result."""
    return {
        "way": name,
        "device": device,
        "token_s": 1 / statistics.mean(measured.tokens_per_s),
        "hit_share": measured.hit_share,
        "mib_per_token": measured.bytes_per_token / MIB,
        "peak_mib": measured.peak_bytes / MIB,
        "store_mib": sum(store.manifest.files.values()) / MIB,
    }


def table(files: Sequence[Path]) -> str:
    """All results in Markdown, a column of times for each device."""
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    devices = list(dict.fromkeys(r["device"] for r in rows))
    times = " | ".join(f"{device}, s per token" for device in devices)
    lines = [
        f"| way | {times} | hits | read per token | peak | store |",
        "|---|" + "---:|" * (len(devices) + 4),
    ]
    for name in dict.fromkeys(r["way"] for r in rows):
        found = {r["device"]: r for r in rows if r["way"] == name}
        times = " | ".join(f"{found[d]['token_s']:.3f}" if d in found else "-" for d in devices)
        one = next(iter(found.values()))
        lines.append(
            f"| {name} | {times} | {one['hit_share']:.0%} | {one['mib_per_token']:.1f} MiB"
            f" | {one['peak_mib']:.0f} MiB | {one['store_mib']:.0f} MiB |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, nargs="+", help="three stores or one, or with --table results")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--device", default="jetson-tx2-ssd")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--modes", default="", help="only these, separated by commas")
    args = parser.parse_args()
    if args.table:
        print(table(args.files))
        return
    for result in run(
        [open_store(path) for path in args.files], args.device, args.text, args.tokens, args.modes
    ):
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
