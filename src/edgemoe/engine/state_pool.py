"""Room for the states of texts: who has some, who waits for some, and who must give some back.

The memory plan fixes how many bytes all states may take. A text claims room before its first step: for its
prompt and a common answer, and where that gets longer, for its whole length at once. It holds nothing while
it waits for that, so texts never wait for each other. Pages that it shares with texts that begin alike count
once. A text that has ended keeps its state, for one that begins alike, until the room is needed. Where room
is lacking, what goes first is

1. texts that have ended, those unused for longest first;
2. open texts of threads that wait for room themselves, and texts that nobody has asked to go on for a while.
   They are computed again, to the same bit, if they go on.

Else the one who asks waits until others have ended, in the order of asking.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from edgemoe.engine.claims import Claim, taken_together
from edgemoe.engine.held_texts import HeldTexts, drop_lost
from edgemoe.engine.holding import Holding
from edgemoe.engine.scheduler import Scheduler
from edgemoe.models import ModelSpec, SequenceState
from edgemoe.native import PageFile

# A text that has not been asked to go on for this long lends its room to those that wait for some.
PAUSE_S = 1.0


class StatePool:
    """Lends states within a fixed number of bytes. Thread-safe."""

    def __init__(
        self, spec: ModelSpec, context: int, kv_format: str, capacity_bytes: int, scheduler: Scheduler
    ) -> None:
        self._spec = spec
        self.context = context
        self.kv_format = kv_format
        self._scheduler = scheduler
        self._file = PageFile()  # in which texts that begin alike share pages
        self._line: deque[tuple[object, int]] = deque()  # who waits for room, and in which thread
        self._held = HeldTexts(capacity_bytes)
        self._left: deque[Holding] = deque()  # of texts that nobody refers to any more

    @property
    def claimed_bytes(self) -> int:
        """What texts that are open, and those that are kept, may take together."""
        return self._held.claimed_bytes

    @property
    def capacity_bytes(self) -> int:
        """What all states may take."""
        return self._held.capacity_bytes

    @property
    def page_bytes(self) -> int:
        """What the pages take in which texts keep something of all their tokens, each page once."""
        return self._file.resident_bytes

    def num_texts(self, num_slots: int, num_common: int = 0) -> int:
        """Texts of so many tokens that have room together, of which ``num_common`` are the same in all."""
        whole_bytes = self._bytes(min(num_slots, self.context))
        state = self._new_state()
        state.resume(num_common, 0)
        first = Claim(whole_bytes, state.page_use)
        further = Claim(whole_bytes, state.page_use_if_copied(num_common))
        further_bytes = taken_together([first, further]) - whole_bytes
        return max(0, 1 + (self.capacity_bytes - whole_bytes) // max(1, further_bytes))

    def has_room(self, num_slots: int) -> bool:
        """Whether a text that may have so many tokens would have a state at once."""
        with self._scheduler.lock:
            self._collect()
            return not self._line and self._can_get((), (), self._bytes(min(num_slots, self.context)))

    def borrow(
        self,
        prompt: Sequence[int],
        token_ids: Sequence[int],
        num_slots: int,
        is_cancelled: Callable[[], bool] = lambda: False,
        *,
        is_reusing: bool = True,
    ) -> Holding:
        """A state, pinned, for a text that begins with these tokens and may have ``num_slots`` in the end.

        It holds as many of the tokens as an earlier text had in common, the last one never; none unless
        ``is_reusing``. Waits for room.

        Raises:
            Cancelled, RequestError: as ``Scheduler.turn``.
        """
        needed = self._bytes(min(num_slots, self.context))
        prompt, token_ids = tuple(prompt), token_ids if is_reusing else ()
        ticket = object(), threading.get_ident()
        scheduler = self._scheduler
        with scheduler.lock:
            try:
                self._line.append(ticket)
                scheduler.notify()  # what this thread has may be what another waits for
                self._reclaim()
                self._collect()
                while self._line[0] is not ticket or not self._can_get(prompt, token_ids, needed):
                    scheduler.wait(is_cancelled, PAUSE_S if self._line[0] is ticket else None)
                    self._collect()
                return self._lend(prompt, token_ids, needed, num_slots)
            finally:
                if ticket in self._line:  # else Ctrl-C came as it was to enter
                    self._line.remove(ticket)
                scheduler.notify()

    def restore(
        self,
        prompt: Sequence[int],
        token_ids: Sequence[int],
        fill: Callable[[SequenceState], None],
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        """Keep a text that was computed elsewhere, as one that has ended; ``fill`` gives a new state its.

        Raises:
            Cancelled, RequestError: as ``borrow``; and whatever ``fill`` raises, after which nothing is kept.
        """
        num_slots = max(len(token_ids), len(prompt))
        holding = self.borrow(prompt, token_ids, num_slots, is_cancelled, is_reusing=False)
        try:
            fill(holding.state)
        except BaseException:
            self.give_back(holding, is_kept=False)
            raise
        holding.has_read_prompt = bool(prompt)
        holding.token_ids = list(token_ids)
        self.unpin(holding)
        self.give_back(holding)

    def kept(self) -> list[Holding]:
        """Texts that have ended and are kept, the one used last at the end."""
        with self._scheduler.lock:
            self._collect()
            return list(self._held.kept)

    def num_common(self, token_ids: Sequence[int]) -> int:
        """How many tokens ``borrow`` would find in an earlier text, if it were asked now."""
        with self._scheduler.lock:
            source, common = self._held.longest_beginning((), token_ids)
            return 0 if source is None else source.state.reachable(common)

    def reachable(self, num_tokens: int, length: int) -> int:
        """The longest beginning of at most ``length`` tokens to which a text can be taken back that
        ``restore`` was given with ``num_tokens``.
        """
        state = self._spec.new_state(self.context, self.kv_format)
        state.resume(num_tokens, 0)
        return state.reachable(length)

    def about_to_go(self, token_ids: Sequence[int], num_slots: int) -> list[Holding]:
        """Texts that have ended and that ``borrow``, if it were asked now, would take away or cut short."""
        with self._scheduler.lock:
            self._collect()
            needed = self._bytes(min(num_slots, self.context))
            return self._held.going_for(token_ids, needed)

    def pin(self, holding: Holding, length: int | None = None) -> bool:
        """Keep a state from being taken away until ``unpin``, without its tokens from ``length`` on.

        False if it has been taken away already, or is now: what it shared may find no second room.
        """
        with self._scheduler.lock:
            if holding.is_lost:
                return False
            num_tokens = len(holding.token_ids)
            left = num_tokens if length is None else length
            if left < num_tokens and not self._held.take_back(holding, left, self._removable()):
                return False
            holding.num_pins += 1
            return True

    def pin_kept(self, holding: Holding) -> bool:
        """Keep the state of a text that has ended as it is until ``unpin``; False if it is not kept any more.

        Others may copy it meanwhile.
        """
        with self._scheduler.lock:
            if holding not in self._held.kept:
                return False
            holding.num_pins += 1
            return True

    def unpin(self, holding: Holding) -> None:
        """The text's step is over."""
        with self._scheduler.lock:
            self._note_use(holding)
            holding.num_pins = max(0, holding.num_pins - 1)
            drop_lost(holding)
            self._scheduler.notify()

    def give_back(self, holding: Holding, *, is_kept: bool = True) -> None:
        """The text has ended; its state is kept for one that begins alike, as long as there is room."""
        with self._scheduler.lock:
            self._give_back(holding, is_kept)

    def leave(self, holding: Holding) -> None:
        """As ``give_back``, from wherever the last reference to a text may go: nothing is waited for."""
        self._left.append(holding)
        lock = self._scheduler.lock
        if lock.acquire(blocking=False):
            try:
                self._collect()
            finally:
                lock.release()

    def rewind(self, holding: Holding, length: int) -> None:
        """Forget tokens of a step that failed, from ``length`` on, which nobody shares."""
        with self._scheduler.lock:  # others may be copying its beginning
            holding.rewind(length)

    def forget(self) -> None:
        """Keep nothing of texts that have ended."""
        with self._scheduler.lock:
            for holding in list(self._held.kept):
                self._held.lose(holding)

    def _give_back(self, holding: Holding, is_kept: bool) -> None:
        if holding.is_lost:
            return
        self._held.lent.remove(holding)
        if is_kept and (holding.token_ids or holding.has_read_prompt):
            num_slots = max(len(holding.token_ids), len(holding.prompt))
            holding.num_pins = 0  # where Ctrl-C came as it was pinned or unpinned, one is left
            holding.state.trim(num_slots)
            holding.claim_bytes = self._bytes(num_slots)
            self._held.kept.append(holding)
        else:
            holding.is_lost = True
            drop_lost(holding)
        self._scheduler.notify()

    def _reclaim(self) -> None:
        """Take back what Ctrl-C kept from this thread on the way from an earlier ``borrow``."""
        if self._scheduler.is_mine:  # in the middle of a step, whose text is pinned
            return
        me = threading.get_ident()
        for holding in [held for held in self._held.lent if held.num_pins and held.thread == me]:
            holding.num_pins = 0
            self._give_back(holding, is_kept=False)

    def _collect(self) -> None:
        """Take back the states of texts that nobody refers to any more."""
        while self._left:
            self._give_back(self._left.popleft(), is_kept=False)

    def _bytes(self, num_slots: int) -> int:
        return self._spec.state_num_bytes(self.context, self.kv_format, num_slots)

    def _note_use(self, holding: Holding) -> None:
        holding.thread, holding.used_s = threading.get_ident(), time.monotonic()

    def _new_state(self) -> SequenceState:
        return self._spec.new_state(self.context, self.kv_format, self._file)

    def _can_get(self, prompt: tuple[int, ...], token_ids: Sequence[int], needed: int) -> bool:
        return self._held.can_get(prompt, token_ids, needed, set(self._removable()))

    def _removable(self) -> list[Holding]:
        waiting = {thread for _, thread in self._line}
        return self._held.removable(waiting, time.monotonic() - PAUSE_S)

    def _lend(
        self, prompt: tuple[int, ...], token_ids: Sequence[int], needed: int, num_slots: int
    ) -> Holding:
        held = self._held
        source, common = held.longest_beginning(prompt, token_ids)
        if source is not None and held.is_better_taken(source, common, needed):
            held.kept.remove(source)
            holding = source
            held.make_room(holding.claim_if_rewound(needed, common), self._removable())
            holding.rewind(common)
            holding.state.trim(max(num_slots, len(prompt)))
            holding.claim_bytes = needed
        else:
            claim = Claim(needed) if source is None else source.claim_if_copied(needed, common)
            held.make_room(claim, self._removable(), spared=source)
            holding = Holding(self._new_state(), needed, prompt)
            if source is not None and not source.is_lost:
                common = holding.state.copy_from(source.state, common)
                holding.token_ids = list(token_ids[:common])
                holding.has_read_prompt = source.has_read_prompt
        held.lent.append(holding)
        self._note_use(holding)
        holding.num_pins = 1
        return holding
