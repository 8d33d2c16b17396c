"""Does conversion stay small? Converts a checkpoint of at least 4 GB and reports the most memory it had.

    python benchmarks/convert_memory.py

Prints a card and one JSON line: peak of the converting process, and of a memory cgroup of 600 MiB around it
where one can be made. Exit code 1 if the peak is above 600 MiB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from memory_cgroup import CgroupUnavailable, run_capped
from random_checkpoint import MIB, config, write_checkpoint

from edgemoe.units import format_size

LIMIT_BYTES = 600 * MIB
# 12 layers of 48 experts of 2048 x 640, in bf16: 4.6 GB with everything else.
SHAPE = {"num_layers": 12, "width": 2048, "expert_width": 640, "num_experts": 48, "top_k": 4}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bits", default="4", help="width of the experts (default: 4)")
    parser.add_argument("--folder", help="where to put about 6 GB for a while (default: a temporary folder)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="edgemoe-convert-memory-") as folder:
        source = Path(folder) / "checkpoint"
        size = write_checkpoint(source, config(**SHAPE))
        command = [sys.executable, "-m", "edgemoe", "convert", str(source), f"{folder}/store", "--bits"]
        command += [arguments.bits, "--json"]
        try:
            capped = run_capped(command, LIMIT_BYTES)
            code, elapsed_s, enforced = capped.exit_code, capped.elapsed_s, True
        except CgroupUnavailable:
            started = time.perf_counter()
            code = subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode
            elapsed_s, enforced = time.perf_counter() - started, False
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(f"checkpoint   {size / 1e9:.2f} GB of bf16")
    print(f"peak memory  {format_size(peak)} of the process, limit {format_size(LIMIT_BYTES)}")
    print(f"cgroup       {'600 MiB enforced, page cache included' if enforced else 'not available'}")
    print(f"time         {elapsed_s:.0f} s, exit code {code}")
    record = {"benchmark": "convert_memory", "checkpoint_bytes": size, "peak_rss_bytes": peak}
    print(json.dumps({**record, "cgroup_enforced": enforced, "elapsed_s": elapsed_s, "exit_code": code}))
    return 0 if code == 0 and peak <= LIMIT_BYTES and size >= 4e9 else 1


if __name__ == "__main__":
    sys.exit(main())
