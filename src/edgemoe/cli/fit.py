"""``edgemoe fit``: what a trace teaches about the next experts, put into the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemoe.cli.options import JsonOption
from edgemoe.cli.output import new_table, print_json, print_table, show_steps

if TYPE_CHECKING:
    from edgemoe.calib.routing import FitReport


def fit(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="Folder made by trace.")],
    store: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="STORE", help="Store that was traced; the result is kept in it."),
    ],
    as_json: JsonOption = False,
) -> None:
    r"""Learn from a trace which experts come next.

    The result is kept in the store, and every command that loads the store uses it to read ahead. The command
    prints which share of experts was forecast correctly one layer ahead, measured on the end of the trace,
    which is not learnt from.

    \b
    edgemoe trace qwen.store --text book.txt -o book.trace
    edgemoe fit book.trace -o qwen.store
    """
    from edgemoe.workflows.tracing import fit_store

    report = fit_store(trace, store, steps=show_steps)
    if as_json:
        recall = {
            name: {"exact": r.exact.tolist(), "wider": r.wider.tolist()} for name, r in report.recall.items()
        }
        print_json({"store": str(store), "num_tokens": report.num_tokens, "recall": recall})
    else:
        _print_report(store, report)


def _print_report(store: Path, report: FitReport) -> None:
    table = new_table(
        "experts forecast one layer ahead",
        "predictor",
        "K experts",
        "1.5 K experts",
        "next token's first layer",
    )
    for name, recall in report.recall.items():
        exact, wider = recall.mean()
        table.add_row(name, f"{exact:.1%}", f"{wider:.1%}", f"{recall.exact[0]:.1%}")
    print_table(table)
    print(f"{store}: fitted on {report.num_tokens} tokens")
