"""The same store on storage of other kinds: the kernel lets through as many bytes and reads as each would.

    python benchmarks/storage_kinds.py olmoe.store --fit-made-up 4096     # a store of make_model.py
    python benchmarks/storage_kinds.py STORE --text FILE --capacity 0.5 --kinds sd sata

Before each turn of a kind (turns.py) the bytes and reads per second of this process are limited for the disk
that the store lies on, by a cgroup of its own (``blkio.throttle`` or ``io.max``; making one needs root).
Latencies stay those of this disk. Each kind is timed with and without reading ahead, with the same memory, on
the same text, in turns with all experts in memory.

A table on stdout, one JSON line in the file.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import remote
from remote import RESIDENT, add_text_arguments, load_options, open_with_text, row
from tables import replace_between
from turns import Way

from edgemoe.store import Store
from edgemoe.units import MIB

_ROOT = Path("/sys/fs/cgroup")
_MB = 1_000_000


@dataclass(frozen=True)
class Kind:
    """What a kind of storage gives; 0: as much as this disk."""

    name: str
    bytes_per_s: int = 0
    reads_per_s: int = 0


# An SD card of class A2 reads 4,000 blocks a second by its specification, and 90 MB/s one behind the other; a
# USB stick is of version 3.0; a SATA disk is bound by its 6 Gbit/s; a network disk by a line of 1 Gbit/s.
KINDS = {
    "sd": Kind("SD card, 90 MB/s", 90 * _MB, 4_000),
    "usb": Kind("USB stick, 180 MB/s", 180 * _MB, 5_000),
    "network": Kind("network disk, 118 MB/s", 118 * _MB, 10_000),
    "sata": Kind("SATA disk, 550 MB/s", 550 * _MB, 90_000),
    "disk": Kind("this disk"),
}


class Throttle:
    """Limits what this process reads from one disk."""

    def __init__(self, folder: Path, disk: str, *, is_v2: bool) -> None:
        self._folder, self._disk, self._is_v2 = folder, disk, is_v2

    def set(self, kind: Kind) -> None:
        """Let through what a kind of storage gives."""
        if self._is_v2:
            bps, iops = (value or "max" for value in (kind.bytes_per_s, kind.reads_per_s))
            (self._folder / "io.max").write_text(f"{self._disk} rbps={bps} riops={iops}")
            return
        limits = (("read_bps", kind.bytes_per_s), ("read_iops", kind.reads_per_s))
        for name, value in limits:
            (self._folder / f"blkio.throttle.{name}_device").write_text(f"{self._disk} {value}")


@contextmanager
def throttle(path: Path) -> Iterator[Throttle]:
    """A limit on what this process reads from the disk under ``path``, until the block ends."""
    is_v2 = (_ROOT / "cgroup.controllers").is_file()
    parent = _ROOT if is_v2 else _ROOT / "blkio"
    folder = parent / f"edgemoe-benchmark-{os.getpid()}"
    number = path.stat().st_dev
    try:
        if is_v2:
            (parent / "cgroup.subtree_control").write_text("+io")
        folder.mkdir()
        (folder / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as error:
        sys.exit(f"storage_kinds.py: cannot make a cgroup at {folder}: {error.strerror}")
    try:
        yield Throttle(folder, f"{os.major(number)}:{os.minor(number)}", is_v2=is_v2)
    finally:
        with suppress(OSError):
            (parent / "cgroup.procs").write_text(str(os.getpid()))
            folder.rmdir()


@dataclass
class KindWay(Way):
    """A way of running on one kind of storage."""

    kind: Kind = field(kw_only=True)
    limits: Throttle = field(kw_only=True)

    def turn(self, token_ids: Sequence[int]) -> None:
        """Follow a piece of text, with what this kind of storage gives."""
        self.limits.set(self.kind)
        super().turn(token_ids)


def measure(
    store: Store, kind: Kind, limits: Throttle, args: argparse.Namespace, ids: Sequence[int]
) -> list[dict[str, Any]]:
    """One kind with and without reading ahead, in turns with everything in memory."""
    total = sum(entry.num_bytes for entry in store.manifest.experts.values())
    share = int(args.capacity * total)
    plan = [
        (RESIDENT, store, load_options(total)),
        (f"{kind.name}, no reading ahead", store, load_options(share, predictor="none")),
        (kind.name, store, load_options(share)),
    ]
    try:
        new_way = partial(KindWay, kind=kind, limits=limits)
        ways = remote.measure(plan, ids, args.turns, args.turn_tokens, new_way)
    finally:
        limits.set(KINDS["disk"])
    return [row(way, ways[0]) for way in ways[1:]]


def line_of(result: dict[str, Any]) -> str:
    """A way's line of the table."""
    share, read = result["share_of_local"], result["bytes_per_token"] / MIB
    speed = f"{result['tokens_per_s']:.2f} | {share:.0%}"
    return f"| {result['way']} | {speed} | {read:.0f} | {result['hit_share']:.0%} |"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_text_arguments(parser)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--capacity", type=float, default=0.75, help="share of the experts in memory")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--turn-tokens", type=int, default=16, help="tokens of a turn")
    args = parser.parse_args()
    store, ids = open_with_text(args)
    lines = ["| storage | tokens/s | of all in memory | MiB/token | hits |", "|---|---:|---:|---:|---:|"]
    print("\n".join(lines))
    rows = []
    with throttle(args.store) as limits:
        for name in args.kinds:
            rows += measure(store, KINDS[name], limits, args, ids)
            lines += [line_of(row) for row in rows[-2:]]
            print("\n".join(lines[-2:]), flush=True)
    record = {"benchmark": "storage_kinds", "store": args.store.name, "capacity": args.capacity, "ways": rows}
    print(json.dumps(record))
    if args.out:
        args.out.write_text(json.dumps(record) + "\n")
    if args.write:
        replace_between(args.write, "storage kinds", lines)


if __name__ == "__main__":
    main()
