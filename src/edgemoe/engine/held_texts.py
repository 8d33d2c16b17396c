"""Texts whose states take room: which there are, what goes for whom, and what begins alike. No locks here.

The rules are those of ``state_pool.py``, which asks for every decision under its lock.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from edgemoe.engine.claims import Claim, taken_together
from edgemoe.engine.holding import Holding, common_prefix

# Tokens that are computed again rather than copied: to keep a text of few more is not worth its room.
FEW_TOKENS = 16


class HeldTexts:
    """Open texts and ended ones, within a number of bytes. Used by one thread at a time."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.lent: list[Holding] = []
        self.kept: list[Holding] = []  # of texts that have ended, the one used last at the end

    def all(self) -> list[Holding]:
        """Both kinds."""
        return [*self.lent, *self.kept]

    @property
    def claimed_bytes(self) -> int:
        """What they may take together."""
        return taken_together(holding.claim for holding in self.all())

    def fits(self, texts: Iterable[Holding], claim: Claim) -> bool:
        """Whether there is room for one more beside these."""
        return taken_together([claim, *(text.claim for text in texts)]) <= self.capacity_bytes

    def removable(self, waiting: Container[int], idle_since_s: float) -> list[Holding]:
        """Texts whose room may be taken, in that order: ended ones, then open ones of threads that are
        ``waiting`` for room, or that nobody has used since then; those unused for longest first.
        """
        ended = [holding for holding in self.kept if not holding.num_pins]
        interruptible = [
            h for h in self.lent if not h.num_pins and (h.thread in waiting or h.used_s <= idle_since_s)
        ]
        return [*ended, *sorted(interruptible, key=lambda holding: holding.used_s)]

    def can_get(
        self,
        prompt: tuple[int, ...],
        token_ids: Sequence[int],
        needed: int,
        removable: Container[Holding],
    ) -> bool:
        """Whether there is room for a text, or can be: alone, or with the one that it begins like."""
        staying = [holding for holding in self.all() if holding not in removable]
        if self.fits(staying, Claim(needed)):
            return True
        source, common = self.longest_beginning(prompt, token_ids)
        if source is None:
            return False
        beside = [holding for holding in staying if holding is not source]
        return self.fits([source, *beside], source.claim_if_copied(needed, common))

    def going_for(self, token_ids: Sequence[int], needed: int) -> list[Holding]:
        """Ended texts that a text of ``needed`` bytes that begins so would take away or cut short."""
        source, common = self.longest_beginning((), token_ids)
        claim = Claim(needed) if source is None else source.claim_if_copied(needed, common)
        going, taken = [], None
        if source is not None and self.is_better_taken(source, common, needed):
            claim, taken = source.claim_if_rewound(needed, common), source
            going = [source] if len(source.token_ids) - common > FEW_TOKENS else []
        staying = [holding for holding in self.all() if holding is not taken]
        for holding in [kept for kept in self.kept if kept is not taken]:
            if self.fits(staying, claim):
                break
            staying.remove(holding)
            going.append(holding)
        return going

    def longest_beginning(
        self, prompt: tuple[int, ...], token_ids: Sequence[int]
    ) -> tuple[Holding | None, int]:
        """The text that has most in common with this one, and how many tokens."""
        best: tuple[Holding | None, int] = None, 0
        for holding in (*self.lent, *self.kept):
            # One in the middle of a step is not what it seems to be.
            is_moving = holding.num_pins > 0 and holding not in self.kept
            if holding.prompt != prompt or not token_ids or is_moving:
                continue
            common = min(common_prefix(holding.token_ids, token_ids), len(token_ids) - 1)
            if common > best[1] or (best[0] is None and prompt and holding.has_read_prompt):
                best = holding, common
        return best

    def is_better_taken(self, source: Holding, common: int, needed: int) -> bool:
        """Whether to go on with the state itself rather than with a copy."""
        if source not in self.kept or source.num_pins:
            return False
        if len(source.token_ids) - common <= FEW_TOKENS:
            return True
        return not self.fits(self.all(), source.claim_if_copied(needed, common))

    def take_back(self, holding: Holding, length: int, removable: Sequence[Holding]) -> bool:
        """Forget a text's tokens from ``length`` on. False: it is lost, for want of room to write again what
        others share with it, or of addresses for its pages.
        """
        claim = holding.claim_if_rewound(holding.claim_bytes, length)
        if claim != holding.claim:
            going = {holding, *removable}
            if not self.fits((h for h in self.all() if h not in going), claim):
                self.lose(holding)
                return False
            self.make_room(claim, removable, replaced=holding)
        try:
            holding.rewind(length)
        except MemoryError:  # some of its pages are its own again, and some are not
            self.lose(holding)
            return False
        return True

    def make_room(
        self,
        claim: Claim,
        removable: Sequence[Holding],
        spared: Holding | None = None,
        replaced: Holding | None = None,
    ) -> None:
        """Take away what has to go for a claim, the text that is to be copied last.

        ``replaced``: the text that has it in place of its own.
        """
        leaving = [holding for holding in removable if holding is not replaced]
        leaving.sort(key=lambda holding: holding is spared)
        for holding in leaving:
            if self.fits((h for h in self.all() if h is not replaced), claim):
                return
            self.lose(holding)

    def lose(self, holding: Holding) -> None:
        """Take a text's state away; its memory goes once nobody works on it."""
        holding.is_lost = True
        (self.kept if holding in self.kept else self.lent).remove(holding)
        drop_lost(holding)


def drop_lost(holding: Holding) -> None:
    """Free the memory at once: the text may stay in a cycle of references until Python looks for those."""
    if holding.is_lost and not holding.num_pins:
        holding.state.drop()
