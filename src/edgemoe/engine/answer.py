"""What is asked for, and what is answered: values only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from edgemoe.arguments import whole
from edgemoe.engine.sampling import MAX_TOP_LOGPROBS, Constraint, Sampling, TokenLogprob
from edgemoe.engine.stats import Stats
from edgemoe.errors import RequestError


@dataclass(frozen=True)
class Request:
    """What to answer: the prompt's tokens, and how the answer is drawn and ended.

    ``logprobs``: report how likely each token was, and this many of the likeliest ones. ``constraint``: says
    which tokens may come next; it serves one request only. ``progress``: called with (done, total) while the
    prompt is read. ``has_text``: tokens are decoded; else the caller does that, and ``stop`` has no effect.
    """

    token_ids: Sequence[int]
    max_tokens: int = 256
    sampling: Sampling = field(default_factory=Sampling)
    stop: Sequence[str] = ()
    stop_ids: frozenset[int] = frozenset()
    logprobs: int | None = None
    constraint: Constraint | None = None
    progress: Callable[[int, int], None] | None = None
    has_text: bool = True

    def __post_init__(self) -> None:
        """Raises RequestError if a value is of another kind, or none that can be."""
        # Kept as Python's own: NumPy's small integers overflow where they are counted on with.
        object.__setattr__(self, "max_tokens", whole("max_tokens", self.max_tokens, 1))
        if self.logprobs is not None:
            object.__setattr__(self, "logprobs", whole("logprobs", self.logprobs, 0))
        if self.logprobs is not None and self.logprobs > MAX_TOP_LOGPROBS:
            raise RequestError(f"logprobs is {self.logprobs}; give 0 to {MAX_TOP_LOGPROBS}, or None")
        if self.progress is not None and not callable(self.progress):
            raise RequestError("progress is no function of (tokens done, tokens of all)")
        if self.constraint is not None and not hasattr(self.constraint, "mask"):
            raise RequestError("constraint has no mask; see edgemoe.engine.sampling.Constraint")


@dataclass(slots=True)  # not frozen, see Stats
class Chunk:
    """A piece of an answer: text (whole characters, maybe none), its tokens, and the costs so far."""

    text: str
    token_ids: tuple[int, ...]
    decode_tokens_per_s: float
    elapsed_s: float  # since the request
    stats: Stats
    logprobs: tuple[TokenLogprob, ...] = ()  # of its tokens, where the request asks for them


@dataclass(frozen=True)
class Generation:
    """An answer and what it cost.

    ``finish_reason`` is "stop", "length", "cancelled" or "interrupted". Hits, misses, bytes and waiting are
    those of the steps that the answer took part in.
    """

    text: str
    token_ids: list[int]
    num_prompt_tokens: int
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    time_to_first_token_s: float
    peak_rss_bytes: int
    budget_bytes: int
    expert_hits: int
    expert_misses: int
    bytes_read: int
    wasted_bytes: int
    waited_s: float
    finish_reason: str
    num_cached_tokens: int = 0  # of the prompt: what an earlier text had in common was not read again
    logprobs: list[TokenLogprob] = field(default_factory=list)
    far_bytes: int = 0  # of a store at a URL: that came over the network
    tier_bytes: int = 0  # and that its copy on this disk spared it
    num_drafted: int = 0  # tokens that were guessed and computed ahead of their turn
    num_accepted: int = 0  # of these, how many were right

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)
