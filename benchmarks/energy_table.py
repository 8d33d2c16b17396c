"""Energy per token of the ways of the ablation, estimated from its seconds and bytes (docs/ablation.json).

    python benchmarks/energy_table.py [--check]

Writes the table into docs/energy.md. Cores compute as long as with all experts in memory, and sleep while
they wait for storage; memory moves the active weights of OLMoE-1B-7B's shape, and what is read once more.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from edgemoe.engine.energy import LAPTOP, EnergyModel

DOCS = Path(__file__).resolve().parents[1] / "docs"
NUM_CORES = 2
PHONE = EnergyModel(core_w=2.0)  # what a phone's big core takes, about
# Bytes of a token: attention and head at 8.5 bits, and 128 experts at 4.5.
DENSE_BYTES, EXPERT_BYTES = 394e6, 455e6
BATTERY_J = 15 * 3600
CAPACITY = 0.5


def main() -> int:
    rows = [
        row
        for row in json.loads((DOCS / "ablation.json").read_text())
        if (row["store"], row["device"], row["capacity"]) == ("olmoe.store", "this-machine", CAPACITY)
    ]
    compute_s = next(r["ms_per_token"] for r in rows if r["way"] == "all in memory") / 1000
    lines = [
        "| way | ms | MB read | J, laptop | J, phone | 15 Wh on the phone: tokens | hours |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        seconds, read = row["ms_per_token"] / 1000, row["bytes_per_token"]
        busy_s = NUM_CORES * min(seconds, compute_s)
        joules = [m.joules(busy_s, read, DENSE_BYTES + EXPERT_BYTES + read) for m in (LAPTOP, PHONE)]
        tokens = BATTERY_J / joules[1]
        lines.append(
            f"| {row['way']} | {1000 * seconds:.1f} | {read / 1e6:.0f} | {joules[0]:.2f} | {joules[1]:.2f}"
            f" | {float(f'{tokens:.2g}'):,.0f} | {tokens * seconds / 3600:.1f} |"
        )
    path = DOCS / "energy.md"
    text = path.read_text()
    table = "<!-- energy -->\n" + "\n".join(lines) + "\n<!-- end of energy -->"
    new = re.sub(r"<!-- energy -->.*<!-- end of energy -->", table, text, flags=re.DOTALL)
    if "--check" not in sys.argv:
        path.write_text(new)
    return int("--check" in sys.argv and new != text)


if __name__ == "__main__":
    sys.exit(main())
