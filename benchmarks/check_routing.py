"""Does a model of make_model.py choose experts as a real one does?

    python benchmarks/check_routing.py olmoe.store

Traces a made-up text and replays its choices through caches of 37.5 % of the experts. Published for
OLMoE-1B-7B: LRU hits 68 %, Belady's policy 84 %.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from make_model import token_chain

import edgemoe
from edgemoe.calib.routing import Setting, simulate
from edgemoe.calib.trace import record_trace
from edgemoe.experts import NoPredictor
from edgemoe.store import find_device

CAPACITY = 0.375
NUM_TOKENS = 1024


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("--memory", help="budget while tracing")
    args = parser.parse_args()
    ids = token_chain(NUM_TOKENS, seed=7)
    with (
        tempfile.TemporaryDirectory() as name,
        edgemoe.load(args.store, args.memory, context=NUM_TOKENS, predictor="none") as model,
    ):
        trace = record_trace(model.engine, {"made up": ids}, Path(name) / "trace")
    setting = Setting(trace, trace.num_tokens, find_device("nvme"), layer_s=1e-3)
    found = {
        policy: simulate(setting, CAPACITY, policy, NoPredictor(), "none").hit_share
        for policy in ("lru", "edgemoe", "belady")
    }
    for policy, share in found.items():
        print(f"{policy:<8} {share:.1%}")
    print(json.dumps({"benchmark": "check_routing", "capacity": CAPACITY, "hits": found}))


if __name__ == "__main__":
    main()
