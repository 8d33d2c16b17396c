"""What benchmarks of the server ask it, and how they look at its times."""

from __future__ import annotations

import random
from collections.abc import Sequence

TEXT = "once upon a time there was a little fox who lived in the old forest near a river"
WORDS = TEXT.split()
LEAVES_SHARE = 0.2  # of the clients, in the middle of their answers


def request_of(number: int) -> dict:
    """A request of some length, always the same for a number."""
    draw = random.Random(number)
    prompt = " ".join(draw.choices(WORDS, k=draw.choice([3, 30, 150])))
    return {"model": "model", "prompt": prompt, "max_tokens": draw.choice([4, 16, 48]), "temperature": 0.8,
            "seed": number, "stream": True}  # fmt: skip


def share(values: Sequence[float], part: float) -> float:
    """The value that this part of all lies below."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
