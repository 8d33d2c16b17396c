"""Answers of a schema that may call functions instead."""

from __future__ import annotations

from collections.abc import Sequence

from edgemoe.server.call_constraint import CallConstraint
from edgemoe.server.constraint import Calls, Mask


class SchemaOrCalls:
    """The constraint of one answer: ``first`` allows the schema's JSON or one call, ``later`` what may follow
    a call.
    """

    def __init__(self, first: CallConstraint, later: Calls, begins: Sequence[str]) -> None:
        """``begins``: what calls begin with, and no JSON does."""
        self._first = first
        self._begins = tuple(begins)
        self._later = later
        self._is_later = False

    def mask(self) -> Mask | None:
        """Which tokens (V,) may come next. Errors as of the constraints within."""
        if not self._is_later:
            mask = self._first.mask()
            self._is_later = self._first.is_over and self._first.text.lstrip().startswith(self._begins)
        return self._later.mask() if self._is_later else mask

    def accept(self, token_id: int) -> None:
        """Take note of a token."""
        (self._later if self._is_later else self._first).accept(token_id)
