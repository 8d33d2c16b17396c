"""``edgemoe trace``: what a model's routers do on a text, written down."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgemoe.cli.options import (
    JsonOption,
    MemoryOption,
    StoreArgument,
    ThreadsOption,
    WindowOption,
    read_texts,
    refuse_folder_of,
    window_within,
)
from edgemoe.cli.output import count_progress, print_json


def trace(
    store: StoreArgument,
    texts: Annotated[
        list[Path],
        typer.Option(
            "--text", metavar="FILE", help="UTF-8 text; may be given again, for several kinds of text."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Trace to make; a new folder.")],
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", metavar="N", min=2, help="Tokens in all, shared by the texts.")
    ] = 16384,
    window: WindowOption = None,
    memory: MemoryOption = None,
    num_threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    r"""Write down which experts a text activates, for fit and simulate.

    \b
    edgemoe trace qwen.store --text book.txt -o book.trace
    edgemoe trace qwen.store --text chat.txt --text code.txt --max-tokens 40000 -o mixed.trace
    """
    import edgemoe
    from edgemoe.calib.text import share_tokens
    from edgemoe.calib.trace import record_trace, refuse_existing

    refuse_existing(out)
    refuse_folder_of(out)
    contents = read_texts(texts)
    context = window_within(store, window)
    with edgemoe.load(store, memory, context=context, num_threads=num_threads, predictor="none") as model:
        token_ids = share_tokens(model.tokenizer, contents, max_tokens)
        with count_progress("tracing", "tokens") as advance:
            made = record_trace(model.engine, token_ids, out, advance)
    if as_json:
        record = {"trace": str(out), "num_tokens": made.num_tokens, "sources": dict(made.sources)}
        print_json({**record, "num_layers": made.catalog.num_layers})
    else:
        print(f"wrote {out}: {made.num_tokens} tokens, {made.catalog.num_layers} layers with experts")
