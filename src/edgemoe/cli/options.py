"""Options that several commands share, so that they are spelt and explained once.

Options that travel together stand in groups (``groups.py``): how a store is loaded (``loading.py``), how it
answers (``answering.py``), how a model is measured and where the work runs (``measuring.py``), and which bit
widths a store gets (``widths.py``). What only one command has stands in that command's file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def unset(name: str, metavar: str, help: str, **rules: Any) -> Any:
    """An option that is None where it is not given; ``help`` says what that means. ``rules`` as of typer."""
    return typer.Option(name, metavar=metavar, help=help, show_default=False, **rules)


StoreArgument = Annotated[
    Path,
    typer.Argument(metavar="STORE", help="Store: a folder made by convert, a name shown by list, or a URL."),
]
ModelArgument = Annotated[
    Path,
    typer.Argument(
        metavar="STORE",
        help="Store: a folder made by convert, a name shown by list, or a URL; or a GGUF file.",
    ),
]
MemoryOption = Annotated[
    str | None,
    unset(
        "--memory",
        "SIZE",
        "Cap on the memory of the whole process, such as 2GiB or 800MiB.  "
        "[default: what is free on the machine or in its cgroup, minus a margin]",
    ),
]
ContextOption = Annotated[
    int | None,
    unset(
        "--context",
        "TOKENS",
        "Longest prompt plus answer; its key/value cache is part of the budget.  [default: 4096, or the"
        " model's most]",
        min=1,
    ),
]
ThreadsOption = Annotated[
    int | None,
    unset(
        "--threads",
        "N",
        "Threads that compute.  [default: one per core, fewer under a cgroup's quota]",
        min=1,
    ),
]
TierOption = Annotated[
    str | None,
    unset(
        "--tier",
        "SIZE",
        "For a store at a URL: how much of this disk may keep experts once they were read; 0 keeps none."
        "  [default: room for all, at most a quarter of what is free]",
    ),
]
DraftOption = Annotated[
    str,
    typer.Option(
        "--draft",
        metavar="auto|none|text|mtp|STORE",
        help="Guess the next tokens and check several in one step, while that is faster; answers stay the"
        " same. text: guess what followed the same words earlier; mtp: use the model's own layer for further"
        " tokens; STORE: use this small model; auto: mtp if the store has it and all experts fit, else text.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")]
SourceArgument = Annotated[
    Path,
    typer.Argument(
        metavar="SRC", help="Model to read: a Hugging Face folder (config.json, safetensors) or a GGUF file."
    ),
]
NoMtpOption = Annotated[
    bool,
    typer.Option("--no-mtp", help="Leave out the model's layer for further tokens (MTP), if it has one."),
]
MaxTextTokensOption = Annotated[
    int,
    typer.Option("--max-tokens", metavar="N", min=2, help="Tokens to use in all, shared among the texts."),
]
WindowOption = Annotated[
    int | None,
    unset(
        "--window",
        "TOKENS",
        "Tokens that the model sees at once.  [default: 512, or the model's context]",
        min=2,
    ),
]
