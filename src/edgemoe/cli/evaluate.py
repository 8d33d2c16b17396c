"""``edgemoe eval``: how well a store predicts a text, or answers prompts whose answers are known."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemoe.cli.options import (
    JsonOption,
    MemoryOption,
    StoreArgument,
    ThreadsOption,
    WindowOption,
    only_one,
    read_text,
    refuse_without,
    window_within,
)
from edgemoe.cli.output import count_progress, print_json, say_budget
from edgemoe.errors import RequestError

if TYPE_CHECKING:
    from edgemoe.api import Model
    from edgemoe.engine.pairs import PairScore
    from edgemoe.engine.perplexity import Score

_KEYS, _PREFIX = "document,summary", "summarize: "


def evaluate(
    store: StoreArgument,
    text: Annotated[
        list[Path] | None,
        typer.Option("--text", metavar="FILE", help="UTF-8 text to be predicted.", show_default=False),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            "--pairs", metavar="FILE", help="JSON lines of prompts with their answers.", show_default=False
        ),
    ] = None,
    keys: Annotated[
        str | None,
        typer.Option(
            "--keys",
            metavar="PROMPT,ANSWER",
            help="Keys of the pairs.  [default: document,summary]",
            show_default=False,
        ),
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(
            "--prefix",
            metavar="TEXT",
            help="Put before the prompt of every pair.  [default: 'summarize: ']",
            show_default=False,
        ),
    ] = None,
    max_pairs: Annotated[
        int | None,
        typer.Option("--max-pairs", metavar="N", min=1, help="Only the first N pairs.", show_default=False),
    ] = None,
    memory: MemoryOption = None,
    window: WindowOption = None,
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
        typer.Option(
            "--max-tokens",
            metavar="N",
            min=2,
            help="Only the first N tokens of the text; of an answer at most N. [default: all; 128]",
            show_default=False,
        ),
    ] = None,
    num_threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    r"""Measure perplexity on a text, or Rouge-2 of answers.

    A text is read by a sliding window. To every prompt of the pairs an answer is written, the likeliest token
    each time, and compared with the right one; perplexity is then that of the right answers. Lower perplexity
    is better, and higher Rouge-2.

    \b
    edgemoe eval qwen.store --memory 6GiB --text wikitext-2/test.txt
    edgemoe eval qwen.store --text book.txt --window 1024 --stride 512 --max-tokens 20000 --json
    edgemoe eval switch.store --pairs xsum.jsonl --max-pairs 100
    edgemoe eval switch.store --pairs samsum.jsonl --keys dialogue,summary
    """
    import edgemoe
    from edgemoe.units import format_duration

    path = only_one(text, "--text")
    if (path is None) == (pairs is None):
        raise RequestError("give either --text or --pairs")
    if path is not None and any(value is not None for value in (keys, prefix, max_pairs)):
        raise RequestError("--keys, --prefix and --max-pairs are for --pairs; leave them out")
    if path is None and stride is not None:
        raise RequestError("--stride is for --text; leave it out")
    if pairs is not None:
        refuse_without("rouge_score", "--pairs", "eval")
    content = None if path is None else read_text(path)
    started = time.monotonic()
    context = window_within(store, window)
    with edgemoe.load(store, memory, context=context, num_threads=num_threads) as model:
        say_budget(model, memory)
        score: Score | PairScore
        if content is None:
            assert pairs is not None
            prefix = _PREFIX if prefix is None else prefix
            score = _score_pairs(model, pairs, keys or _KEYS, prefix, max_pairs, max_tokens or 128)
        else:
            assert path is not None
            token_ids = model.tokenizer.encode(content)[:max_tokens]
            with count_progress(f"reading {path.name}", "tokens") as advance:
                score = model.perplexity(token_ids, window=context, stride=stride, progress=advance)
    elapsed_s = time.monotonic() - started
    if as_json:
        print_json({**score.to_json(), "elapsed_s": elapsed_s})
    else:
        print(f"{_line(score)} in {format_duration(elapsed_s)}")


def _score_pairs(
    model: Model, path: Path, keys: str, prefix: str, max_pairs: int | None, max_tokens: int
) -> PairScore:
    from edgemoe.engine.pairs import read_pairs

    prompt_key, comma, answer_key = keys.partition(",")
    if not comma:
        raise RequestError(f"--keys {keys!r}: give two, such as document,summary")
    chosen = read_pairs(path, prompt_key, answer_key, prefix)[:max_pairs]
    with count_progress(f"answering {path.name}", "pairs") as advance:
        return model.score_pairs(chosen, max_tokens=max_tokens, progress=advance)


def _line(score: Score | PairScore) -> str:
    from edgemoe.engine.perplexity import Score

    if isinstance(score, Score):
        return f"perplexity {score.perplexity:.4f} over {score.num_tokens} tokens"
    low, high = score.interval
    cut = f", {score.num_cut} of them cut to the context" if score.num_cut else ""
    return (
        f"Rouge-2 {score.rouge2:.4f} ({low:.4f} to {high:.4f}), perplexity of the answers"
        f" {score.perplexity:.4f}, over {score.num_pairs} pairs{cut}"
    )
