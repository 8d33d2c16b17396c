"""Ways of running a model, timed in short turns one after the other within one process.

Whatever else the machine does meets all ways alike; what is compared is the median of the turns.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgemoe.engine.loading import Engine

# The governor makes its first comparison within these tokens.
WARM_TOKENS, TURN_TOKENS = 96, 24


@dataclass
class Way:
    """One way of running, and its times per token, one for each turn."""

    name: str
    engine: Engine
    times_s: list[float] = field(default_factory=list)
    tokens_ahead: int = 0  # tokens with reading ahead on
    bytes_read: int = 0
    num_tokens: int = 0

    @property
    def median_s(self) -> float:
        """Seconds per token."""
        return statistics.median(self.times_s)

    def turn(self, token_ids: Sequence[int]) -> None:
        """Follow a piece of text."""
        before, began_s = self.engine.experts.counts.bytes_read, time.perf_counter()
        for token_id in token_ids:
            self.engine.session.step(token_id)
            self.tokens_ahead += self.engine.experts.is_reading_ahead
        self.times_s.append((time.perf_counter() - began_s) / len(token_ids))
        self.bytes_read += self.engine.experts.counts.bytes_read - before
        self.num_tokens += len(token_ids)

    def forget(self) -> None:
        """What was timed until now was for warming up."""
        self.times_s.clear()
        self.tokens_ahead = self.bytes_read = self.num_tokens = 0


def take_turns(
    ways: Sequence[Way], token_ids: Sequence[int], num_turns: int, turn_tokens: int = TURN_TOKENS
) -> None:
    """All ways in turn, each over the same text, after turns that do not count.

    Their order is drawn anew each time: what ran just before a way, such as one that left the worker threads
    asleep, makes its first tokens faster or slower. Where a token takes less than a millisecond, turns of 24
    are too short for that not to show.
    """
    order = random.Random(0)
    for turn in range(-WARM_TOKENS // turn_tokens, num_turns):
        if turn == 0:
            for way in ways:
                way.forget()
        count = f"turn {turn + 1} of {num_turns}" if turn >= 0 else "warming up"
        print(f"{count}: {', '.join(way.name for way in ways)}", file=sys.stderr)
        first = 2 + (turn * turn_tokens + WARM_TOKENS) % (len(token_ids) - turn_tokens - 2)
        for way in order.sample(ways, len(ways)):
            session = way.engine.session
            if len(session.token_ids) + turn_tokens > session.num_slots:
                session.prefill(token_ids[:2])
            way.turn(token_ids[first : first + turn_tokens])
