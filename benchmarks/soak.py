"""Does a server hold for long, and when things go wrong?

    python benchmarks/soak.py [STORE] [--memory 100MiB] [--requests 1000] [--at-once 16]

Servers of their own processes, under a memory cgroup of the budget's size where one can be made:

1. load: requests of mixed lengths, some of whose clients leave, and one client that never reads. Every answer
   that comes to its end must equal the one that the request gets alone; memory must not grow.
2. stalls: storage stands still for seconds, again and again. Answers are the same; heartbeats come.
3. damage: half of the experts are overwritten while the server runs, then mended. Requests fail by name, and
   succeed again.
4. resumed: responses are made in the background while their readers leave after a few events and come back.
   They hear every event once, and the same answer as one that waited.
5. SIGTERM: what runs comes to its end, what waits or comes is refused with 503.

Prints a card for people and one JSON line for programs. Exit code 1 if any of it is not so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path

from memory_cgroup import CgroupUnavailable, memory_group
from soak_parts.parts import damage, load, resumed, stall, stop
from soak_parts.server import served

from edgemoe.units import format_size, parse_size


def soak(store: Path, memory: str, num_requests: int, at_once: int) -> dict:
    """All parts."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        copy = shutil.copytree(store, folder / "store")
        try:
            group = stack.enter_context(memory_group(parse_size(memory)))
        except CgroupUnavailable as reason:
            group = None
            print(f"without a cgroup: {reason}", file=sys.stderr)
        print("many requests at once", file=sys.stderr)
        with served(copy, memory, group) as (url, process):
            found = {"load": asyncio.run(load(url, process, num_requests, at_once))}
        alone = found["load"].pop("alone")
        print("storage that stalls", file=sys.stderr)
        with served(copy, memory, group, stalls=True) as (url, _):
            found["stalls"] = asyncio.run(stall(url, alone, at_once))
        print("damaged experts", file=sys.stderr)
        with served(copy, memory, group) as (url, _):
            found["damage"] = asyncio.run(damage(url, copy, alone))
        print("readers that leave and come back", file=sys.stderr)
        with served(copy, memory, group) as (url, _):
            found["resumed"] = asyncio.run(resumed(url, num_requests // 5, at_once))
        print("SIGTERM", file=sys.stderr)
        with served(copy, memory, group) as (url, process):
            found["sigterm"] = asyncio.run(stop(url, process))
        if group is not None:
            found["cgroup"] = {"peak_bytes": group.peak_bytes(), "oom_kills": group.num_oom_kills()}
    return found


def faults_of(found: dict) -> list[str]:
    """What is not as promised."""
    load, growth = found["load"], found["load"]["resident_bytes"]
    checks = {
        "answers differ from those alone": load["wrong"],
        "requests are left over": load["left_over"],
        "memory grows": growth[1] - growth[0] > 8 << 20,
        "stalls change answers": found["stalls"]["wrong"],
        "stalls are silent": not found["stalls"]["heartbeats"],
        "damage goes unnoticed": not found["damage"]["refused_by_name"],
        "damage gives wrong answers": found["damage"]["neither_right_nor_refused"],
        "a mended store stays broken": found["damage"]["wrong_after_mending"],
        "readers that come back miss something": found["resumed"]["out_of_order"],
        "responses in the background differ": found["resumed"]["wrong"],
        "SIGTERM breaks what runs": not found["sigterm"]["running_ended"],
        "SIGTERM does not refuse": found["sigterm"]["waiting_refused"] != 4,
        "SIGTERM ends wrongly": found["sigterm"]["exit_code"] != -signal.SIGTERM,
    }
    if "cgroup" in found:
        checks["the cap is exceeded"] = found["cgroup"]["oom_kills"]
    return [name for name, is_so in checks.items() if is_so]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    demo = Path(str(files("edgemoe").joinpath("demo_store")))
    parser.add_argument("store", nargs="?", type=Path, default=demo)
    parser.add_argument("--memory", default="100MiB", help="budget, and size of the cgroup")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=16)
    arguments = parser.parse_args()
    found = soak(arguments.store, arguments.memory, arguments.requests, arguments.at_once)
    faults = faults_of(found)
    for part, values in found.items():
        print(f"{part:8} " + ", ".join(f"{name} {value}" for name, value in values.items()))
    if "cgroup" in found:
        print(f"peak     {format_size(found['cgroup']['peak_bytes'])} of {arguments.memory}")
    print("faults   " + ("; ".join(faults) or "none"))
    print(json.dumps({"benchmark": "soak", "requests": arguments.requests, **found, "faults": faults}))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
