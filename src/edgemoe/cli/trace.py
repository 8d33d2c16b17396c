"""``edgemoe trace``: what a model's routers do on a text, written down."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgemoe.cli.given import read_texts
from edgemoe.cli.options import (
    JsonOption,
    MaxTextTokensOption,
    MemoryOption,
    StoreArgument,
    ThreadsOption,
    WindowOption,
)
from edgemoe.cli.output import print_json, show_steps


def trace(
    store: StoreArgument,
    texts: Annotated[
        list[Path],
        typer.Option(
            "--text", metavar="FILE", help="UTF-8 text; can be repeated, for several kinds of text."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Trace to make; a new folder.")],
    max_tokens: MaxTextTokensOption = 16384,
    window: WindowOption = None,
    memory: MemoryOption = None,
    num_threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    r"""Record which experts a text uses, for fit, simulate and convert.

    fit learns from the trace which experts to read ahead, simulate replays it, and convert --trace rounds
    weights for its text.

    \b
    edgemoe trace qwen.store --text book.txt -o book.trace
    edgemoe trace qwen.store --text chat.txt --text code.txt --max-tokens 40000 -o mixed.trace
    """
    from edgemoe.workflows.tracing import TraceOptions, trace_store

    options = TraceOptions(max_tokens, window, memory, num_threads)
    made = trace_store(store, read_texts(texts), out, options, steps=show_steps)
    if as_json:
        record = {"trace": str(out), "num_tokens": made.num_tokens, "sources": dict(made.sources)}
        print_json({**record, "num_layers": made.catalog.num_layers})
    else:
        print(f"wrote {out}: {made.num_tokens} tokens, {made.catalog.num_layers} layers with experts")
