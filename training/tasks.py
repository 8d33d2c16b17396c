"""Pairs of a prompt and an answer for encoder-decoder models, as batches of tokens.

Three tasks: spans left out of a window and asked for by sentinels (T5, arXiv 1910.10683, section 3.1.4),
the second half of a window that begins after the first, and questions on a passage. A batch is a pure
function of (seed, step), as in data.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, processors

NUM_SENTINELS = 100
PAD, EOS = 0, 2  # <|endoftext|>, which also begins an answer, and <|im_end|>
CONTINUE, ANSWER = "continue: ", "question: {question} context: {passage}"
SHARES = {"spans": 0.45, "continue": 0.4, "questions": 0.15}
NOISE_SHARE, MEAN_SPAN = 0.15, 3
IGNORED = -100  # the label of padding


def with_sentinels(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with 100 sentinels after its vocabulary, and the end mark after every text."""
    tokenizer.add_special_tokens(
        [AddedToken(f"<extra_id_{i}>", special=True, normalized=False) for i in range(NUM_SENTINELS)]
    )
    mark = tokenizer.id_to_token(EOS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {mark}", special_tokens=[(mark, EOS)]
    )
    return tokenizer


def leave_out(
    window: np.ndarray, first_sentinel: int, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """A window with spans replaced by sentinels, and the spans after their sentinels."""
    num_noise = max(1, round(len(window) * NOISE_SHARE))
    num_spans = min(NUM_SENTINELS, max(1, round(num_noise / MEAN_SPAN)))
    lengths = _parts(num_noise, num_spans, rng)
    gaps = _parts(len(window) - num_noise, num_spans, rng)
    prompt: list[int] = []
    answer: list[int] = []
    at = 0
    for sentinel, (gap, length) in enumerate(zip(gaps, lengths, strict=True), first_sentinel):
        prompt += [*window[at : at + gap], sentinel]
        answer += [sentinel, *window[at + gap : at + gap + length]]
        at += gap + length
    return [int(t) for t in prompt], [int(t) for t in answer]


def _parts(total: int, count: int, rng: np.random.Generator) -> list[int]:
    """Positive lengths that add up to the total."""
    cuts = np.sort(rng.choice(np.arange(1, total), count - 1, replace=False))
    return [int(n) for n in np.diff([0, *cuts, total])]


def questions(path: Path, tokenizer: Tokenizer, length: int) -> list[tuple[list[int], list[int]]]:
    """Questions of a file as pairs; passages are cut to the prompt's length."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    prompts = tokenizer.encode_batch([ANSWER.format(**row) for row in rows], add_special_tokens=False)
    answers = tokenizer.encode_batch([row["answer"] for row in rows], add_special_tokens=False)
    return [(p.ids[: length - 1], a.ids) for p, a in zip(prompts, answers, strict=True)]


@dataclass(frozen=True)
class Batch:
    """Prompts (B, L) with their mask, and labels (B, M) in which padding is ignored."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor

    def to(self, device: str) -> dict[str, torch.Tensor]:
        """As arguments of the model."""
        return {name: value.to(device) for name, value in vars(self).items()}


class Tasks:
    """Draws pairs of all tasks from rows of tokens."""

    def __init__(
        self, rows: Mapping[str, np.ndarray], asked: list[tuple[list[int], list[int]]],
        tokenizer: Tokenizer, seed: int,
    ) -> None:  # fmt: skip
        self._rows = list(rows.values())
        self._sizes = np.array([len(row) for row in self._rows]) / sum(map(len, self._rows))
        self._asked, self._seed = asked, seed
        self._first_sentinel = tokenizer.token_to_id("<extra_id_0>")
        self._continue = tokenizer.encode(CONTINUE, add_special_tokens=False).ids

    def batch(self, step: int, size: int, length: int) -> Batch:
        """Pairs of step `step`: prompts of at most `length` tokens, answers of at most half."""
        rng = np.random.default_rng((self._seed, step))
        names = rng.choice(list(SHARES), size, p=list(SHARES.values()))
        pairs = [self._pair(name, length, rng) for name in names]
        prompts = _padded([[*p[: length - 1], EOS] for p, _ in pairs], PAD)
        answers = _padded([[*a[: length // 2 - 1], EOS] for _, a in pairs], IGNORED)
        lengths = torch.tensor([min(len(p), length - 1) + 1 for p, _ in pairs])
        mask = (torch.arange(prompts.shape[1])[None, :] < lengths[:, None]).long()
        return Batch(prompts, mask, answers)

    def _pair(self, name: str, length: int, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        if name == "questions" and self._asked:
            return self._asked[rng.integers(len(self._asked))]
        row = self._rows[rng.choice(len(self._rows), p=self._sizes)]
        start = rng.integers(0, len(row) - length)
        window = row[start : start + length]
        if name == "spans":
            return leave_out(window, self._first_sentinel, rng)
        middle = length // 2
        return [*self._continue, *window[:middle].tolist()], window[middle:].tolist()


def _padded(rows: list[list[int]], filler: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [filler] * (longest - len(row)) for row in rows])
