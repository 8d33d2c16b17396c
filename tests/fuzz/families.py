"""Random configurations of every family against transformers, for a while; see scripts/fuzz-families.

Each must give the logits of transformers, or be refused by a line that names the key. A fault has a family
and a number, by which it is made again.
"""

from __future__ import annotations

import argparse
import collections
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import transformers
from helpers.family_check import Outcome, check
from helpers.random_configs import RANDOM, random_config


def run_families(
    seconds: float, names: Sequence[str] = (), first: int = 0
) -> Iterator[tuple[str, int, Outcome]]:
    """Configurations of the families in turn for about so long, from number ``first`` on."""
    end = time.monotonic() + seconds
    for seed in count(first):
        for family in names or RANDOM:
            if seed > first and time.monotonic() > end:
                return
            with tempfile.TemporaryDirectory() as folder:
                yield family, seed, check(random_config(family, seed), Path(folder))


def main(arguments: Sequence[str]) -> int:
    """The command; see scripts/fuzz-families."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz-families", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--family", action="append", default=[], choices=[*RANDOM], help="this one alone")
    parser.add_argument("--seed", type=int, default=0, help="number of the first configuration")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    transformers.logging.disable_progress_bar()
    counts = {family: collections.Counter[str]() for family in options.family or RANDOM}
    for family, seed, outcome in run_families(options.seconds, options.family, options.seed):
        counts[family][outcome.kind] += 1
        if outcome.kind == "fault":
            print(f"{family} {seed}: {outcome.what}", flush=True)
    for family, found in counts.items():
        print(f"{family}: {', '.join(f'{number} {kind}' for kind, number in sorted(found.items()))}")
    num_faults = sum(found["fault"] for found in counts.values())
    print(f"{sum(found.total() for found in counts.values())} configurations, {num_faults} faults")
    return 1 if num_faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
