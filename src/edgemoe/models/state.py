"""What a text leaves behind in all layers, and whose pages of memory it has.

A state per text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from edgemoe.models.layer_state import LayerState, Slots, StoredState
from edgemoe.native import TextPages


class PageShare(NamedTuple):
    """A part of another text's pages, by bytes of the whole pages that a text has filled there."""

    run: int  # number of those pages
    start_bytes: int
    end_bytes: int


class PageUse(NamedTuple):
    """Whose pages a text has; see ``native.TextPages``."""

    run: int  # number of its own, NEW_RUN for those that are yet to be
    shares: tuple[PageShare, ...]
    kept_bytes: int  # by the system, of pages that are shared

    @staticmethod
    def of(use: tuple[int, Sequence[tuple[int, int, int]], int]) -> PageUse:
        """From what compiled code says."""
        return PageUse(use[0], tuple(PageShare(*share) for share in use[1]), use[2])


NEW_RUN = -1
NOTHING_SHARED = PageUse(NEW_RUN, (), 0)


class SequenceState:
    """All that a model keeps of one text: a state for each layer of the decoder, filled up to ``length``.

    Layers that look at an encoder's states have those in ``cross``, of which ``cross_length`` slots are
    filled.
    """

    def __init__(
        self,
        layers: Sequence[LayerState | None],
        cross: Sequence[Slots | None],
        num_slots: int,
        pages: TextPages | None = None,
    ) -> None:
        """``layers`` and ``cross`` by layer of the decoder, None where it keeps nothing.

        ``pages``: those that layers were made with, if texts share them.
        """
        self.layers = layers
        self.cross = cross
        self.num_slots = num_slots
        self._pages = pages
        self.length = 0
        self.cross_length = 0

    @property
    def num_bytes(self) -> int:
        """Memory that it takes, used or not."""
        return sum(state.num_bytes for state in (*self.layers, *self.cross) if state is not None)

    def rewind(self, length: int) -> int:
        """Forget the tokens from ``length`` on, and if need be some before; the length that is left.

        What came from an encoder stays.
        """
        length = self.reachable(min(self.length, length))
        if self._pages is not None:
            self._pages.take_back(length)
        for state in self._states():
            state.rewind(length)
        self.length = length
        return length

    def keep(self) -> None:
        """Note that the text may be taken back to here: at the end of a prompt, or of a part of it."""
        for state in self._states():
            state.keep()

    def copy_from(self, other: SequenceState, length: int) -> int:
        """Begin as another text does, with its first ``length`` tokens or, if need be, fewer; how many.

        Where both have pages they share those that the tokens fill; else they are copied.
        """
        length = other.reachable(min(other.length, length))
        if self._pages is not None and other._pages is not None:
            self._pages.begin_as(other._pages, length)
        for mine, theirs in zip(self._states(), other._states(), strict=True):
            mine.copy_from(theirs, length)
        for slots, encoded in zip(self.cross, other.cross, strict=True):
            if slots is not None and encoded is not None:
                slots.copy_from(encoded, other.cross_length)
        self.length, self.cross_length = length, other.cross_length
        return length

    def drop(self) -> None:
        """Give all memory back, even if something still refers to this state; it is not used any more."""
        self.layers, self.cross, self._pages = (), (), None

    def trim(self, num_tokens: int) -> None:
        """Give back memory that a text of so many tokens, which this one has at most, does not need."""
        if self._pages is not None:
            self._pages.trim(num_tokens)
        for state in (*self.layers, *self.cross):
            if state is not None:
                state.trim(num_tokens)

    @property
    def page_use(self) -> PageUse:
        """Whose pages it has."""
        return NOTHING_SHARED if self._pages is None else PageUse.of(self._pages.use())

    def page_use_if_copied(self, length: int) -> PageUse:
        """Whose pages a state would have after ``copy_from`` of this one."""
        if self._pages is None:
            return NOTHING_SHARED
        return PageUse.of(self._pages.use_if_begun(self.reachable(min(self.length, length))))

    def page_use_if_rewound(self, length: int) -> PageUse:
        """Whose pages it would have after ``rewind``."""
        if self._pages is None:
            return NOTHING_SHARED
        return PageUse.of(self._pages.use_if_taken_back(self.reachable(min(self.length, length))))

    def resume(self, length: int, cross_length: int) -> None:
        """Prepare a state without tokens for the ``pieces`` of a text of this length.

        Raises:
            NotImplementedError: a layer's state cannot be stored.
        """
        for state, count in self._stored(length, cross_length):
            state.resume(count)
        self.length, self.cross_length = length, cross_length

    def pieces(self) -> list[NDArray[Any]]:
        """Views of all that the text needs to go on, layer by layer. Raises as ``resume``."""
        stored = self._stored(self.length, self.cross_length)
        return [piece for state, count in stored for piece in state.pieces(count)]

    def _stored(self, length: int, cross_length: int) -> list[tuple[StoredState, int]]:
        states: list[tuple[LayerState | None, int]] = [(state, length) for state in self.layers]
        states += [(state, cross_length) for state in self.cross]
        stored: list[tuple[StoredState, int]] = []
        for state, count in states:
            if isinstance(state, StoredState):
                stored.append((state, count))
            elif state is not None:
                raise NotImplementedError(type(state).__name__)
        return stored

    def _states(self) -> list[LayerState]:
        return [state for state in self.layers if state is not None]

    def reachable(self, length: int) -> int:
        """The longest beginning of at most ``length`` tokens that every layer can go back to."""
        states = self._states()
        while (reached := min((state.reachable(length) for state in states), default=length)) < length:
            length = reached
        return length
