"""Table and picture of the race in docs/benchmarks.md, made of the results of versus_llamacpp.py.

    python benchmarks/race_report.py docs/race.json

Writes the table between the marks in docs/benchmarks.md and the picture beside the results.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tables import replace_between

from edgemoe.units import format_size

DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
_HEAD = (
    "| cap | engine | decoding, tok/s | of the best llama.cpp | prompt, tok/s | first token | read per token"
    " | peak |"
)


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of Markdown."""
    lines = [_HEAD, "|---|---|---:|---:|---:|---:|---:|---:|"]
    for row in rows:
        size = "" if row["cap_bytes"] is None else f" ({format_size(row['cap_bytes'])})"
        cells = [f"{row['cap']}{size}", row["engine"]]
        if "failed" in row:
            cells += [row["failed"], "", "", "", "", format_size(row["peak_bytes"])]
        else:
            low, high = row["decode_range"]
            cells += [
                f"{row['decode_per_s']:.2f} ({low:.2f}-{high:.2f})",
                _share_of_rival(row, rows),
                f"{row['prefill_per_s']:.0f}",
                f"{row['first_token_s']:.1f} s",
                format_size(int(row["bytes_per_token"])),
                format_size(row["peak_bytes"]),
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _share_of_rival(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    rivals = [
        other["decode_per_s"]
        for other in rows
        if other["cap"] == row["cap"] and other["engine"].startswith("llama") and "failed" not in other
    ]
    return f"{row['decode_per_s'] / max(rivals):.2f}x" if rivals else ""


def draw(rows: Sequence[dict[str, Any]], file_bytes: int, path: Path) -> None:
    """Speed against the cap, both engines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(row["engine"] for row in rows):
        points = sorted(
            ((row["cap_bytes"] or file_bytes) / 2**30, row["decode_per_s"])
            for row in rows
            if row["engine"] == name and "failed" not in row
        )
        # A single point is a ring, so that it shows around another engine's.
        style = {"markersize": 12, "markerfacecolor": "none"} if len(points) == 1 else {}
        axes.plot(*zip(*points, strict=True), "o-", label=name, **style)
    axes.axvline(file_bytes / 2**30, color="grey", linestyle=":", label="size of the GGUF file")
    axes.set(
        xlabel="memory cap, GiB (at the dotted line: none)",
        ylabel="decoding, tokens per second",
        yscale="log",
    )
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="center")  # no line passes there
    figure.savefig(path, dpi=120)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path)
    args = parser.parse_args()
    record = json.loads(args.results.read_text())
    draw(record["rows"], record["file_bytes"], args.results.with_suffix(".png"))
    replace_between(DOCUMENT, "race", table(record["rows"]))


if __name__ == "__main__":
    main()
