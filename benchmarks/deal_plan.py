"""The widths of a planned store dealt out at random to another's experts: for models of make_model.py.

    edgemoe convert models/edgemoe-16m small.store --tolerance 2% --text FILE
    python benchmarks/deal_plan.py small.store olmoe.store -o dealt.json
    edgemoe convert olmoe.gguf planned.store --plan dealt.json

Random weights have no sensitivities to plan by; this gives every width the share of experts that it has in a
real plan. Dense matrices become 4 bits, as those of the store it is compared with are.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from edgemoe.quant import BitPlan, ExpertFormats
from edgemoe.store import open_store


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("planned", type=Path, help="a store of any model, written by a plan")
    parser.add_argument("store", type=Path, help="whose experts get its widths")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", "-o", type=Path, required=True)
    args = parser.parse_args()
    deck = [entry.formats for _, entry in sorted(open_store(args.planned).manifest.experts.items())]
    keys = sorted(open_store(args.store).manifest.experts)
    random = np.random.default_rng(args.seed)
    # Every width as often as its share says, and then shuffled.
    dealt = random.permutation(np.arange(len(keys)) * len(deck) // len(keys))
    overrides = {key: deck[card] for key, card in zip(keys, dealt, strict=True)}
    origin = {"kind": "made up", "text": f"the widths of {args.planned.name}, dealt out at random"}
    plan = BitPlan(ExpertFormats.uniform("q4"), "q4", overrides, origin)
    args.out.write_text(json.dumps(plan.to_json(), indent=1) + "\n")


if __name__ == "__main__":
    main()
