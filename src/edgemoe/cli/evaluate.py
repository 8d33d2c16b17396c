"""``edgemoe eval``: how well a store predicts a text."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from edgemoe.cli.options import JsonOption, MemoryOption, StoreArgument, ThreadsOption, read_text
from edgemoe.cli.output import count_progress, print_json, say_budget


def evaluate(
    store: StoreArgument,
    text: Annotated[
        Path,
        typer.Option("--text", metavar="FILE", help="UTF-8 text to be predicted.", show_default=False),
    ],
    memory: MemoryOption = None,
    window: Annotated[
        int, typer.Option("--window", metavar="TOKENS", min=2, help="Tokens the model sees at once.")
    ] = 512,
    stride: Annotated[
        int | None,
        typer.Option(
            "--stride",
            metavar="TOKENS",
            min=1,
            help="Tokens scored per window, the rest is what they follow. [default: half a window]",
            show_default=False,
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", metavar="N", min=2, help="Only the first N tokens.", show_default=False),
    ] = None,
    num_threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    r"""Measure perplexity on a text by a sliding window; lower is better.

    \b
    edgemoe eval qwen.store --memory 6GiB --text wikitext-2/test.txt
    edgemoe eval qwen.store --text book.txt --window 1024 --stride 512 --max-tokens 20000 --json
    """
    import edgemoe
    from edgemoe.units import format_duration

    content = read_text(text)
    started = time.monotonic()
    with edgemoe.load(store, memory, context=window, num_threads=num_threads) as model:
        if memory is None:
            say_budget(model)
        token_ids = model.tokenizer.encode(content)[:max_tokens]
        with count_progress(f"reading {text.name}", "tokens") as advance:
            score = model.perplexity(token_ids, window=window, stride=stride or window // 2, progress=advance)
    elapsed_s = time.monotonic() - started
    if as_json:
        print_json({**score.to_json(), "elapsed_s": elapsed_s})
    else:
        print(
            f"perplexity {score.perplexity:.4f} over {score.num_tokens} tokens "
            f"in {format_duration(elapsed_s)}"
        )
