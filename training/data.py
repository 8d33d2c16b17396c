"""Text of several domains, mixed by weight into batches of token windows.

A batch is a pure function of (seed, step), so a resumed run sees what an uninterrupted one would.
`*.train.txt` and `*/train.jsonl` are trained on; valid and test files are for measuring only.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from tokenizer import END, TURN, TURN_END
from tokenizers import Tokenizer


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
    Source("stories", "tinystories.train.txt", "tinystories.valid.txt", 0.32, 10),
    Source("requests", "tinystories.train.txt", "tinystories.valid.txt", 0.16, 10),
    Source("children", "open_children_books.train.txt", "open_children_books.valid.txt", 0.05, 2),
    Source("fairytales", "fairytales.train.txt", "fairytales.valid.txt", 0.05, 3),
    Source("books", "gutenberg_children.train.txt", "gutenberg_children.valid.txt", 0.04, 4),
    Source("dialogue", "fairytaleqa/train.jsonl", "fairytaleqa/test.jsonl", 0.13, 11),
    Source("arithmetic", "gsm8k/train.jsonl", "gsm8k/test.jsonl", 0.13, 5),
    Source("wikipedia", "wikipedia.train.txt", "wikipedia.valid.txt", 0.12, 12),
)
CALCULATOR = re.compile(r"<<.*?>>")
COMMON_WORDS = """
they them their then there that this with was were what when where which while will would have has
had said says very once upon time into from about again after before because could some your just
like little happy wanted want went came back looked felt thought each other good best more many much
didn don't didn't make made took take asked day named saw started play played smiled together
friends
"""
COMMON = frozenset(COMMON_WORDS.split())


def turn(role: str, text: str) -> str:
    """One turn in the form of the chat template."""
    return f"{TURN}{role}\n{text}{TURN_END}\n"


def _sentence(text: str) -> str:
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?", '"')) else text + "."


def _subjects(story: str) -> list[str]:
    """The two words that a story repeats most, without the common ones: what somebody would ask for."""
    counts = Counter(re.findall(r"(?<!\w)[a-z]{4,}(?!\w)", story))
    return [word for word, n in counts.most_common(12) if n > 1 and word not in COMMON][:2]


def request(story: str) -> str:
    """A story as the answer to a request for it."""
    subjects = " and ".join(f"the {word}" for word in _subjects(story))
    # The form of the request varies with the story, not at random, so that the same file gives the same text.
    forms = (
        "Tell me a story{}.",
        "Write a short story{}.",
        "Can you tell me a story{}?",
        "Please tell me a tale{}.",
    )
    asked = forms[len(story) % len(forms)].format(f" about {subjects}" if subjects else "")
    return turn("user", asked) + turn("assistant", story)


def _reading(rows: list[dict[str, str]]) -> str:
    """A passage and the questions about it as one conversation."""
    first, *rest = rows
    asked = [f"{first['passage']}\n\n{first['question']}", *(row["question"] for row in rest)]
    return "".join(
        turn("user", question) + turn("assistant", _sentence(row["answer"]))
        for question, row in zip(asked, rows, strict=True)
    )


def _exercise(row: dict[str, str]) -> str:
    answer = CALCULATOR.sub("", row["answer"]).replace("\n#### ", "\nThe answer is ").strip()
    return turn("user", row["question"]) + turn("assistant", answer + ".")


def documents(source: Source, path: Path) -> list[str]:
    """The first `max_mb` megabytes of a text or question-answer file, as documents."""
    with path.open(encoding="utf-8") as file:
        text = file.read(int(source.max_mb * 1e6))
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
        if "passage" not in rows[0]:
            return [_exercise(row) for row in rows]
        return [_reading(list(group)) for _, group in groupby(rows, key=lambda row: row["passage"])]
    parts = [part.strip() for part in text.split(END) if part.strip()]
    return [request(part) for part in parts] if source.name == "requests" else parts


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
