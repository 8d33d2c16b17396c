"""``edgemoe eval``: how well a store predicts a text, or answers prompts whose answers are known."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from edgemoe.cli.given import only_one, read_text, refuse_without
from edgemoe.cli.groups import with_groups
from edgemoe.cli.options import JsonOption, MemoryOption, ModelArgument, ThreadsOption, WindowOption, unset
from edgemoe.cli.output import print_json, say, show_steps
from edgemoe.errors import RequestError

if TYPE_CHECKING:
    from edgemoe.engine.pairs import Pair, PairScore
    from edgemoe.engine.perplexity import Score

_KEYS, _PREFIX = "document,summary", "summarize: "


@dataclass(frozen=True)
class EvaluatedText:
    """A text to predict, and how its windows move."""

    text: Annotated[
        list[Path] | None,
        unset("--text", "FILE", "UTF-8 text to predict."),
    ] = None
    stride: Annotated[
        int | None,
        unset(
            "--stride",
            "TOKENS",
            "Tokens scored in each window; those before them are context.  [default: half a window]",
            min=1,
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.text is None and self.stride is not None:
            raise RequestError("--stride is for --text; leave it out")

    @property
    def path(self) -> Path | None:
        """The path of the text, if one was given."""
        return only_one(self.text, "--text")


@dataclass(frozen=True)
class EvaluatedPairs:
    """Prompts whose answers are known."""

    pairs: Annotated[
        Path | None,
        unset("--pairs", "FILE", "Prompts with their answers, as lines of JSON."),
    ] = None
    keys: Annotated[
        str | None,
        unset(
            "--keys", "PROMPT,ANSWER", "Keys of prompt and answer in each line.  [default: document,summary]"
        ),
    ] = None
    prefix: Annotated[
        str | None,
        unset("--prefix", "TEXT", "Text put before every prompt.  [default: 'summarize: ']"),
    ] = None
    max_pairs: Annotated[
        int | None,
        unset("--max-pairs", "N", "Use only the first N pairs.", min=1),
    ] = None

    def __post_init__(self) -> None:
        has_more = any(value is not None for value in (self.keys, self.prefix, self.max_pairs))
        if self.pairs is None and has_more:
            raise RequestError("--keys, --prefix and --max-pairs are for --pairs; leave them out")
        if self.pairs is not None:
            refuse_without("rouge_score", "--pairs", "eval")

    def read(self) -> list[Pair]:
        """The pairs of the file."""
        from edgemoe.engine.pairs import read_pairs

        assert self.pairs is not None
        keys = self.keys or _KEYS
        prompt_key, comma, answer_key = keys.partition(",")
        if not comma:
            raise RequestError(f"--keys {keys!r}: give two, such as document,summary")
        prefix = _PREFIX if self.prefix is None else self.prefix
        return read_pairs(self.pairs, prompt_key, answer_key, prefix)[: self.max_pairs]


@with_groups
def evaluate(
    store: ModelArgument,
    followed: EvaluatedText,
    answered: EvaluatedPairs,
    memory: MemoryOption = None,
    window: WindowOption = None,
    max_tokens: Annotated[
        int | None,
        unset(
            "--max-tokens",
            "N",
            "With --text, the first N tokens; with --pairs, at most N tokens per answer."
            "  [default: all; 128]",
            min=2,
        ),
    ] = None,
    num_threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    r"""Measure quality: perplexity on a text, or Rouge-2 of answers.

    --text measures perplexity with a sliding window; lower is better. --pairs writes an answer to every
    prompt, taking the most likely token each time, and compares it with the right answer: higher Rouge-2 is
    better. The perplexity of the right answers is shown as well.

    \b
    edgemoe eval qwen.store --memory 6GiB --text wikitext-2/test.txt
    edgemoe eval qwen.store --text book.txt --window 1024 --stride 512 --max-tokens 20000 --json
    edgemoe eval switch.store --pairs xsum.jsonl --max-pairs 100
    edgemoe eval switch.store --pairs samsum.jsonl --keys dialogue,summary
    """
    from edgemoe.units import format_duration
    from edgemoe.workflows.evaluate import EvaluateOptions, evaluate_pairs, evaluate_text

    path = followed.path
    if (path is None) == (answered.pairs is None):
        raise RequestError("give either --text or --pairs")
    options = EvaluateOptions(memory, window, followed.stride, max_tokens, num_threads)
    started = time.monotonic()
    score: Score | PairScore
    if path is None:
        score = evaluate_pairs(store, answered.read(), options, steps=show_steps, tell=say)
    else:
        score = evaluate_text(store, read_text(path), options, steps=show_steps, tell=say)
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
