"""What the pool of states knows of one text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edgemoe.models import SequenceState


@dataclass(eq=False)
class Holding:
    """The state of a text, and the tokens it has seen; the text's own as long as it is not lost."""

    state: SequenceState
    claim_bytes: int
    prompt: tuple[int, ...]  # what the encoder reads, where there is one
    token_ids: list[int] = field(default_factory=list)
    has_read_prompt: bool = False
    is_lost: bool = False
    num_pins: int = 0
    thread: int = 0  # that used it last
    used_s: float = 0.0

    def rewind(self, length: int) -> None:
        """Forget the tokens from ``length`` on, and if need be some before."""
        reached = self.state.rewind(length)
        del self.token_ids[reached:]


def common_prefix(a: Sequence[object], b: Sequence[object]) -> int:
    """How many leading tokens two texts share."""
    shorter = min(len(a), len(b))
    if a[:shorter] == b[:shorter]:  # as mostly: a text that goes on
        return shorter
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
