"""What the pool of states knows of one text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edgemoe.engine.claims import Claim
from edgemoe.models import SequenceState


@dataclass(eq=False)
class Holding:
    """The state of a text, and the tokens it has seen; the text's own as long as it is not lost."""

    state: SequenceState
    claim_bytes: int  # of all its tokens, whoever shares some
    prompt: tuple[int, ...]  # what the encoder reads, where there is one
    token_ids: list[int] = field(default_factory=list)
    has_read_prompt: bool = False
    is_lost: bool = False
    num_pins: int = 0
    thread: int = 0  # that used it last
    used_s: float = 0.0

    @property
    def claim(self) -> Claim:
        """What it may take now."""
        return Claim(self.claim_bytes, self.state.page_use)

    def claim_if_copied(self, num_bytes: int, length: int) -> Claim:
        """That of a text of ``num_bytes`` that begins with the first ``length`` tokens of this one."""
        return Claim(num_bytes, self.state.page_use_if_copied(length))

    def claim_if_rewound(self, num_bytes: int, length: int) -> Claim:
        """Its own, as a text of ``num_bytes``, after ``rewind``."""
        return Claim(num_bytes, self.state.page_use_if_rewound(length))

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
