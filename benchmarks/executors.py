"""A profile by one worker of one core, and by two: time, and whether the numbers are the same.

    python benchmarks/executors.py MODEL --text FILE... [--tokens 8192] [--ray]

Both on this machine, whose first two cores stand for two nodes of one core each: what two nodes gain beyond
that, memory and storage of their own, does not show. Workers are processes; with `--ray` they are nodes of a
local Ray cluster. `alone` is what only the command itself does (the bf16 store, the trace, merging), which no
number of nodes makes shorter. Best of `--turns`, in turns. Prints a card and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgemoe.calib.widths import CalibrationOptions, make_profile
from edgemoe.executors import Executor, Processes, RayCluster

BUDGET_BYTES = 2 << 30


class Timed:
    """An executor that keeps how long its workers were at work."""

    def __init__(self, executor: Executor) -> None:
        self._executor, self.elapsed_s = executor, 0.0

    def check(self) -> None:
        """See Executor."""
        self._executor.check()

    def map(self, *arguments: Any) -> None:
        """See Executor."""
        began = time.monotonic()
        self._executor.map(*arguments)
        self.elapsed_s += time.monotonic() - began


@contextmanager
def workers(count: int, on_ray: bool) -> Iterator[Executor]:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:count])
    try:
        if not on_ray:
            yield Processes(count)
            return
        import ray
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "memory": 2 * BUDGET_BYTES}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        for _ in range(count - 1):
            cluster.add_node(**node)
        try:
            yield RayCluster(cluster.address, memory_bytes=BUDGET_BYTES)
        finally:
            ray.shutdown()
            cluster.shutdown()
    finally:
        os.sched_setaffinity(0, cores)


def run(model: Path, texts: dict[str, str], tokens: int, count: int, on_ray: bool) -> dict[str, Any]:
    options = CalibrationOptions(max_tokens=tokens, budget_bytes=BUDGET_BYTES)
    with (
        tempfile.TemporaryDirectory(dir=".", prefix="edgemoe-benchmark-") as folder,
        workers(count, on_ray) as w,
    ):
        timed = Timed(w)
        began = time.monotonic()
        with make_profile(model, Path(folder) / "profile", texts, options, executor=timed) as profile:
            profile.find_fast()
            found = {name: value for name, value in profile.found.items() if "_s " not in name}
        whole_s = time.monotonic() - began
    return {"whole_s": whole_s, "alone_s": whole_s - timed.elapsed_s, "found": found}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--ray", action="store_true")
    args = parser.parse_args()
    texts = {path.name: path.read_text(encoding="utf-8") for path in args.text}
    runs: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    for turn in range(args.turns):
        for count, made in runs.items():
            print(f"turn {turn + 1} of {args.turns}: {count} of one core", file=sys.stderr)
            made.append(run(args.model, texts, args.tokens, count, args.ray))
    assert all(made["found"] == runs[1][0]["found"] for each in runs.values() for made in each), "bits differ"
    best = {count: min(each, key=lambda made: made["whole_s"]) for count, each in runs.items()}
    for count, made in best.items():
        print(f"{count} of one core: {made['whole_s']:.1f} s, of it alone {made['alone_s']:.1f} s")
    gain = best[1]["whole_s"] / best[2]["whole_s"]
    print(f"two over one: {gain:.2f}x; {len(best[1]['found'])} numbers are the same to the last bit")
    record = {str(count): {k: v for k, v in made.items() if k != "found"} for count, made in best.items()}
    print(json.dumps({"benchmark": "executors", "ray": args.ray, "gain": gain, "workers": record}))


if __name__ == "__main__":
    main()
