"""``edgemoe eval``: how well a store predicts a text, or answers prompts whose answers are known."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemoe.cli.groups import with_groups
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
_MOST_ANSWERED = 128  # tokens of an answer


@dataclass(frozen=True)
class EvaluatedText:
    """A text to be predicted, and how it is gone through."""

    text: Annotated[
        list[Path] | None,
        typer.Option("--text", metavar="FILE", help="UTF-8 text to be predicted.", show_default=False),
    ] = None
    stride: Annotated[
        int | None,
        typer.Option(
            "--stride",
            metavar="TOKENS",
            min=1,
            help="Tokens scored per window, the rest is what they follow. [default: half a window]",
            show_default=False,
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.text is None and self.stride is not None:
            raise RequestError("--stride is for --text; leave it out")

    @property
    def path(self) -> Path | None:
        """Of the text, if there is one."""
        return only_one(self.text, "--text")

    def score(self, model: Model, content: str, window: int, max_tokens: int | None) -> Score:
        """How well the model predicts what the file holds."""
        assert self.path is not None
        token_ids = model.tokenizer.encode(content)[:max_tokens]
        with count_progress(f"reading {self.path.name}", "tokens") as advance:
            return model.perplexity(token_ids, window=window, stride=self.stride, progress=advance)


@dataclass(frozen=True)
class EvaluatedPairs:
    """Prompts whose answers are known."""

    pairs: Annotated[
        Path | None,
        typer.Option(
            "--pairs", metavar="FILE", help="JSON lines of prompts with their answers.", show_default=False
        ),
    ] = None
    keys: Annotated[
        str | None,
        typer.Option(
            "--keys",
            metavar="PROMPT,ANSWER",
            help="Keys of the pairs.  [default: document,summary]",
            show_default=False,
        ),
    ] = None
    prefix: Annotated[
        str | None,
        typer.Option(
            "--prefix",
            metavar="TEXT",
            help="Put before the prompt of every pair.  [default: 'summarize: ']",
            show_default=False,
        ),
    ] = None
    max_pairs: Annotated[
        int | None,
        typer.Option("--max-pairs", metavar="N", min=1, help="Only the first N pairs.", show_default=False),
    ] = None

    def __post_init__(self) -> None:
        has_more = any(value is not None for value in (self.keys, self.prefix, self.max_pairs))
        if self.pairs is None and has_more:
            raise RequestError("--keys, --prefix and --max-pairs are for --pairs; leave them out")
        if self.pairs is not None:
            refuse_without("rouge_score", "--pairs", "eval")

    def score(self, model: Model, max_tokens: int | None) -> PairScore:
        """What the model answers, compared with the answers in the file."""
        from edgemoe.engine.pairs import read_pairs

        assert self.pairs is not None
        keys = self.keys or _KEYS
        prompt_key, comma, answer_key = keys.partition(",")
        if not comma:
            raise RequestError(f"--keys {keys!r}: give two, such as document,summary")
        prefix = _PREFIX if self.prefix is None else self.prefix
        chosen = read_pairs(self.pairs, prompt_key, answer_key, prefix)[: self.max_pairs]
        with count_progress(f"answering {self.pairs.name}", "pairs") as advance:
            return model.score_pairs(chosen, max_tokens=max_tokens or _MOST_ANSWERED, progress=advance)


@with_groups
def evaluate(
    store: StoreArgument,
    followed: EvaluatedText,
    answered: EvaluatedPairs,
    memory: MemoryOption = None,
    window: WindowOption = None,
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

    path = followed.path
    if (path is None) == (answered.pairs is None):
        raise RequestError("give either --text or --pairs")
    content = None if path is None else read_text(path)
    started = time.monotonic()
    context = window_within(store, window)
    with edgemoe.load(store, memory, context=context, num_threads=num_threads) as model:
        say_budget(model, memory)
        score: Score | PairScore
        if content is None:
            score = answered.score(model, max_tokens)
        else:
            score = followed.score(model, content, context, max_tokens)
    elapsed_s = time.monotonic() - started
    if as_json:
        print_json({**score.to_json(), "elapsed_s": elapsed_s})
    else:
        print(f"{_line(score)} in {format_duration(elapsed_s)}")


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
