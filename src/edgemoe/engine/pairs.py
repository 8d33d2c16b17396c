"""Scoring answers to prompts whose right answers are known: Rouge-2 of what is written, and perplexity.

Rouge-2 (Lin 2004) is the F1 of word pairs that the written and the right answer share, by `rouge-score`,
stems compared; the paper measures summaries by it (arXiv 2308.14352, section IV).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgemoe.engine.answer import Request
from edgemoe.engine.bootstrap import draw_indices, interval_of
from edgemoe.engine.generation import Stream
from edgemoe.engine.loading import Engine
from edgemoe.engine.perplexity import answer_nats, perplexity_of
from edgemoe.errors import RequestError
from edgemoe.progress import Progress


@dataclass(frozen=True)
class Pair:
    """A prompt and its right answer."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class PairScore:
    """Means over all pairs. ``interval`` is that of Rouge-2 by a bootstrap over pairs.

    ``num_cut`` prompts or answers were longer than the context and only their beginning was used.
    """

    num_pairs: int
    num_cut: int
    rouge2: float
    interval: tuple[float, float]
    nats_per_token: float
    num_tokens: int

    @property
    def perplexity(self) -> float:
        """The perplexity of the right answers, given their prompts."""
        return perplexity_of(self.nats_per_token)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "perplexity": self.perplexity}


def read_pairs(path: Path, prompt_key: str, answer_key: str, prefix: str = "") -> list[Pair]:
    """The pairs of a file with one JSON object a line; ``prefix`` is put before every prompt.

    Raises:
        RequestError: a line is no object with these two keys, one is empty, or there is no line.
    """
    pairs = []
    try:
        # Not splitlines: what parts lines elsewhere, such as U+2028, may stand in the texts.
        lines = path.read_text(encoding="utf-8").removeprefix("\ufeff").split("\n")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            prompt, answer = str(row[prompt_key]), str(row[answer_key])
        except (ValueError, KeyError, TypeError) as error:
            raise RequestError(
                f"{path}, line {number}: not a JSON object with {prompt_key!r} and {answer_key!r}"
            ) from error
        if not (prompt and answer):
            raise RequestError(f"{path}, line {number}: the prompt or the answer is empty")
        pairs.append(Pair(prefix + prompt, answer))
    if not pairs:
        raise RequestError(f"{path}: holds no pairs")
    return pairs


def score_pairs(
    engine: Engine, pairs: Sequence[Pair], max_tokens: int = 128, progress: Progress | None = None
) -> PairScore:
    """Write an answer to every prompt, greedily, and compare it with the right one.

    Raises:
        RequestError: rouge-score is not installed, or nothing of the context is left to answer in.
    """
    scorer = _rouge()
    num_cut, nats, num_tokens = 0, 0.0, 0
    shared: list[float] = []
    for pair in pairs:
        prompt, answer, is_cut = _encode(engine, pair, max_tokens)
        num_cut += is_cut
        stream = Stream(engine, Request(prompt, max_tokens, stop_ids=engine.tokenizer.stop_ids))
        for _ in stream:
            pass
        shared.append(scorer.score(pair.answer, stream.generation.text)["rouge2"].fmeasure)
        nats += answer_nats(engine.session, prompt, answer)
        num_tokens += len(answer)
        if progress is not None:
            progress(len(shared), len(pairs))
    return PairScore(
        len(pairs), num_cut, float(np.mean(shared)), _interval(shared), nats / num_tokens, num_tokens
    )


def _rouge() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise RequestError("Rouge needs rouge-score: pip install 'edgemoe[eval]'") from None
    return RougeScorer(["rouge2"], use_stemmer=True)


def _encode(engine: Engine, pair: Pair, max_tokens: int) -> tuple[list[int], list[int], bool]:
    """Tokens of prompt and answer as far as the context holds them, and whether they were cut."""
    tokenizer, room = engine.tokenizer, engine.session.num_slots
    prompt = tokenizer.encode(pair.prompt)
    if engine.spec.has_encoder:  # it has room of its own; texts end with a mark, which a cut one keeps
        answer = tokenizer.encode(pair.answer)
        kept = prompt if len(prompt) <= room else [*prompt[: room - 1], prompt[-1]]
    else:
        answer = tokenizer.encode(pair.answer, adds_special=False)
        kept, room = prompt[: room - max_tokens], max_tokens
        if not kept:
            raise RequestError(f"{max_tokens} tokens of answer leave no room for a prompt in the context")
    return kept, answer[:room], len(kept) < len(prompt) or len(answer) > room


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """The confidence interval of the mean."""
    return interval_of(np.array(values)[draw_indices(len(values))].mean(axis=1))
