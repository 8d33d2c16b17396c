"""The benchmark of batches runs and says what it is asked for; its numbers are not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from edgemoe.workflows.demo import demo_store

FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_every_way_is_measured():
    sizes = ["--prompt", "8", "--answer", "4", "--chunk", "32", "--long", "100", "--repeats", "1"]
    with demo_store() as store:
        done = subprocess.run(
            [sys.executable, FOLDER / "batch.py", store, "--share", "0.4", "--count", "1", "2", *sizes],
            capture_output=True,
            text=True,
            check=True,
        )
    result = json.loads(done.stdout.splitlines()[-1])
    assert [(row["what"], row["count"]) for row in result["rows"]] == [
        ("in turn", 1), ("in turn", 2), ("chosen", 2), ("forced", 2), ("samples", 2),
        ("prompts in turn", 2), ("prompts at once", 2),
    ]  # fmt: skip
    assert all(row["tokens_per_s"] > 0 for row in result["rows"])
    assert result["paces"][0]["alone_s"] > 0
