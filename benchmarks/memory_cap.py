"""Does the budget hold? Runs a store several times larger inside a memory cgroup of exactly the budget.

    python benchmarks/memory_cap.py --memory 300MiB

Prints a card and one JSON line: peak of the cgroup (page cache included), OOM kills, and whether the tokens
are those of a run with everything in memory. Exit code 1 if any of it is not as promised.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from memory_cgroup import CappedRun, CgroupUnavailable, drop_caches, run_capped
from random_checkpoint import config, write_checkpoint

from edgemoe.convert import convert
from edgemoe.quant import BitPlan
from edgemoe.units import format_size, parse_size

PROMPT = "Once upon a time there was a little boat. " * 12
TOKENS = "32"


def make_store(folder: Path) -> Path:
    """A store of about 1.3 GiB: 12 layers of 64 experts at 4 bits."""
    write_checkpoint(folder / "checkpoint", config(12, 1024, 768, 64, 4))
    convert(folder / "checkpoint", folder / "store", BitPlan.uniform("q4", "q8"))
    return folder / "store"


def command(store: Path, memory: str) -> list[str]:
    options = ["--memory", memory, "--prompt", PROMPT, "--max-tokens", TOKENS, "--context", "512", "--json"]
    return [sys.executable, "-m", "edgemoe", "run", str(store), *options]


def report(store: Path, memory: str, capped: CappedRun, resident: dict[str, object]) -> bool:
    budget = parse_size(memory)
    size = sum(path.stat().st_size for path in store.iterdir())
    answer = json.loads(capped.stdout) if capped.exit_code == 0 else {}
    record = {
        "benchmark": "memory_cap",
        "store_bytes": size,
        "budget_bytes": budget,
        "store_over_budget": size / budget,
        "cgroup_peak_bytes": capped.peak_bytes,
        "peak_rss_bytes": answer.get("peak_rss_bytes"),
        "oom_kills": capped.num_oom_kills,
        "exit_code": capped.exit_code,
        "same_tokens_as_resident": answer.get("token_ids") == resident["token_ids"],
        "expert_hits": answer.get("expert_hits"),
        "expert_misses": answer.get("expert_misses"),
    }
    holds = capped.exit_code == 0 and not capped.num_oom_kills and capped.peak_bytes <= budget
    print(f"store        {format_size(size)}, {size / budget:.1f} times the budget")
    print(f"budget       {format_size(budget)}, enforced by a memory cgroup without swap")
    print(f"peak         {format_size(capped.peak_bytes)} by the cgroup, page cache included")
    print(f"OOM kills    {capped.num_oom_kills}")
    print(f"tokens       {'the same as' if record['same_tokens_as_resident'] else 'DIFFERENT FROM'} resident")
    print(json.dumps(record))
    if capped.exit_code:
        print(capped.stderr, file=sys.stderr)
    return holds and bool(record["same_tokens_as_resident"]) and size >= 3 * budget


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--memory", default="300MiB", help="budget and size of the cgroup (default: 300MiB)")
    parser.add_argument("--folder", help="where to put about 4 GiB for a while (default: a temporary folder)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="edgemoe-memory-cap-") as folder:
        store = make_store(Path(folder))
        resident = subprocess.run(command(store, "4GiB"), capture_output=True, text=True, check=True)
        drop_caches()
        try:
            capped = run_capped(command(store, arguments.memory), parse_size(arguments.memory))
        except CgroupUnavailable as reason:
            print(f"skipped: {reason}")
            print(json.dumps({"benchmark": "memory_cap", "skipped": str(reason)}))
            return 0
        return 0 if report(store, arguments.memory, capped, json.loads(resident.stdout)) else 1


if __name__ == "__main__":
    sys.exit(main())
