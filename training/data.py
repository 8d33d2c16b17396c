"""Text of several domains, mixed by weight into batches of token windows.

A batch is a pure function of (seed, step), so a resumed run sees what an uninterrupted one would.
`*.train.txt` and `*/train.jsonl` are trained on; valid and test files are for measuring only.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizer import END, TURN, TURN_END


@dataclass(frozen=True)
class Source:
    """A domain: its files, its share of the windows, and how much of it is read."""

    name: str
    train: str
    held_out: str
    weight: float
    max_mb: float


# Stories lead, because a small model can learn to write them well; no source is repeated many times.
SOURCES = (
    Source("tinystories", "tinystories.train.txt", "tinystories.valid.txt", 0.44, 10),
    Source("children", "open_children_books.train.txt", "open_children_books.valid.txt", 0.10, 2),
    Source("fairytales", "fairytales.train.txt", "fairytales.valid.txt", 0.05, 3),
    Source("books", "gutenberg_children.train.txt", "gutenberg_children.valid.txt", 0.05, 4),
    Source("dialogue", "fairytaleqa/train.jsonl", "fairytaleqa/test.jsonl", 0.16, 11),
    Source("arithmetic", "gsm8k/train.jsonl", "gsm8k/test.jsonl", 0.12, 5),
    Source("wikipedia", "wikipedia.train.txt", "wikipedia.valid.txt", 0.08, 6),
)
CALCULATOR = re.compile(r"<<.*?>>")


def chat(question: str, answer: str) -> str:
    """One exchange in the form of the chat template."""
    return f"{TURN}user\n{question}{TURN_END}\n{TURN}assistant\n{answer}{TURN_END}\n"


def _exchange(line: str) -> str:
    row = json.loads(line)
    question = f"{row['passage']}\n\n{row['question']}" if "passage" in row else row["question"]
    answer = CALCULATOR.sub("", row["answer"]).replace("\n#### ", "\nThe answer is ").strip()
    return chat(question, answer[:1].upper() + answer[1:])


def documents(path: Path, max_mb: float) -> list[str]:
    """The first `max_mb` megabytes of a text or question-answer file, as documents."""
    with path.open(encoding="utf-8") as file:
        text = file.read(int(max_mb * 1e6))
    if path.suffix == ".jsonl":
        return [_exchange(line) for line in text.splitlines() if line.endswith("}")]
    return [part.strip() for part in text.split(END) if part.strip()]


def encode(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    """All documents in one row of tokens, each followed by the end mark (0)."""
    rows = tokenizer.encode_batch([text + END for text in texts])
    return np.concatenate([np.asarray(row.ids, dtype=np.uint16) for row in rows])


class Mixture:
    """Random windows from rows of tokens, each row drawn with the weight of its source."""

    def __init__(self, rows: dict[str, np.ndarray], weights: dict[str, float], seed: int) -> None:
        self.rows, self.seed = rows, seed
        total = sum(weights[name] for name in rows)
        self.shares = [weights[name] / total for name in rows]

    def batch(self, step: int, size: int, length: int) -> torch.Tensor:
        """Tokens [size, length] of step `step`."""
        rng = np.random.default_rng((self.seed, step))
        rows = list(self.rows.values())
        picked = (rows[i] for i in rng.choice(len(rows), size, p=self.shares))
        starts = ((row, rng.integers(0, len(row) - length)) for row in picked)
        return torch.from_numpy(np.stack([row[at : at + length] for row, at in starts]).astype(np.int64))
