"""Which resident expert leaves when another needs its place.

A policy sees how experts have been used and says what each candidate is worth; the lowest leaves first.
Where experts differ in size, several neighbours may have to leave for one: those that are worth least in
sum, counted from the least worth of all. It is never asked about experts in use. What each is worth, by
policy:

* ``lru``: its last use.
* ``lfu``: its frequency of use; of equals, the less recently used leaves first.
* ``lfru``: frequency over the tokens since the last use.
* ``edgemoe``: frequency over the layers until its layer runs next, the paper's prose (arXiv 2308.14352,
  section III-C): rarely used experts of far layers leave first.
* ``forecast``: as edgemoe, with the mean of frequency and of the forecast for the next token in place of
  frequency. What a router saw says much about its next choice, which counting uses cannot know. Where
  nothing is fitted there is no forecast, and this is edgemoe.
* ``edgemoe-printed``: frequency over the layers since its layer ran, the paper's formula as printed. It
  contradicts the prose, as it lets the next layer's experts go first.
"""

from __future__ import annotations

from edgemoe import native
from edgemoe.errors import RequestError
from edgemoe.experts.catalog import Catalog
from edgemoe.native import EvictionPolicy

FORECAST = "forecast"
POLICIES = ("lru", "lfu", "lfru", "edgemoe", FORECAST, "edgemoe-printed")
# The nearest to Belady's on held-out text at a quarter and at half of the experts, see docs/streaming.md.
DEFAULT_POLICY = FORECAST
# Tokens after which a use counts half: long enough to know an expert's popularity in a text, short enough
# to forget the text before. Chosen by simulation on held-out text, see docs/streaming.md.
HALF_LIFE_TOKENS = 32


class UseStatistics(native.UseStatistics):
    """How often and when each expert of a catalog was used. Adapts to the text; see ``native.eviction``."""

    def __init__(self, catalog: Catalog, half_life_tokens: float = HALF_LIFE_TOKENS) -> None:
        positions = catalog.layer_position.tolist()
        super().__init__(catalog.num_bytes.tolist(), positions, catalog.first_step, half_life_tokens)


def make_policy(name: str) -> EvictionPolicy:
    """A new policy of that name.

    Raises:
        RequestError: there is none.
    """
    if name not in POLICIES:
        raise RequestError(f"no eviction policy {name!r}; choose one of {', '.join(POLICIES)}")
    return native.make_policy(name)
