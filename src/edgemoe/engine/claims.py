"""What texts may take together, where those that begin alike share pages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from edgemoe.models.state import NOTHING_SHARED, PageShare, PageUse


class Claim(NamedTuple):
    """What one text may take."""

    num_bytes: int  # if it shared nothing
    pages: PageUse = NOTHING_SHARED


def taken_together(claims: Iterable[Claim]) -> int:
    """Most bytes that these texts take, a beginning that several have once.

    It counts to the text whose own pages it is, or where that is gone, as far as another has it.
    """
    claims = list(claims)
    owned = {claim.pages.run for claim in claims}
    left: dict[int, PageShare] = {}
    total = 0
    for claim in claims:
        total += claim.num_bytes + claim.pages.kept_bytes
        for share in claim.pages.shares:
            total -= share.end_bytes - share.start_bytes
            if share.run not in owned:
                left[share.run] = max(share, left.get(share.run, share))
    return total + sum(share.end_bytes - share.start_bytes for share in left.values())
