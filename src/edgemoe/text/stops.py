"""Ending an answer before a stop text that may be spread over several tokens."""

from __future__ import annotations

from collections.abc import Sequence


class StopScanner:
    """Lets text through, except the longest end that a stop text could begin with."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.is_stopped = False

    @property
    def has_stops(self) -> bool:
        """Whether anything is looked for."""
        return bool(self._stops)

    def would_stop(self, text: str) -> bool:
        """Whether a stop text would be complete if ``text`` came next."""
        return any(stop in self._held + text for stop in self._stops)

    def push(self, text: str) -> str:
        """Text that may be shown now; sets ``is_stopped`` when a stop text is complete."""
        if not self.has_stops:
            return text
        self._held += text
        found = [i for i in map(self._held.find, self._stops) if i >= 0]
        if found:
            self.is_stopped = True
            shown, self._held = self._held[: min(found)], ""
            return shown
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def flush(self) -> str:
        """What was held back when no more text comes."""
        shown, self._held = self._held, ""
        return shown


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that is a proper beginning of ``stop``."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if stop.startswith(text[-n:])), 0)
