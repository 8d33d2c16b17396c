"""What rendering a template may cost, counted before it is spent.

Time is counted in steps: loop rounds, calls, operations, and one more for some bytes that an operation looks
at. Memory is counted in bytes of what is made, whether or not it is kept. Values are measured whole, as if
nothing were shared: a list that holds one list ten times weighs ten times as much, because printing it does.
Templates cannot change lists and objects, so each is measured once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.runtime import Undefined
from jinja2.utils import Namespace

# A conversation of 10,000 messages takes half a million steps; a step is about a microsecond.
_MAX_STEPS = 2_000_000
# Steps that are slower than that. Processor time of the thread, so that a busy machine changes nothing.
_MAX_SECONDS = 4.0
_STEPS_PER_LOOK = 2048
_BYTES_PER_STEP = 256
# One value, and all that is made together, beside what the conversation itself weighs.
_MAX_VALUE_BYTES = 16 << 20
_MAX_MADE_BYTES = 64 << 20
_INPUT_SHARE = 8
_MAX_DEPTH = 64
# Numbers in arguments are widths and counts; in results they stay printable.
MAX_ARGUMENT = 100_000
_MAX_BITS = 4096


class CostError(SecurityError):
    """A template asks for more than it may."""


class Meter:
    """Counts one rendering."""

    def __init__(self, inputs: Mapping[str, Any]) -> None:
        self._measured: dict[int, tuple[Any, int, int]] = {}
        self._max_value, self._steps, self._bytes = sys.maxsize, 0, 0
        self._began_s, self._next_look = time.thread_time(), _STEPS_PER_LOOK
        weight = self.weigh(inputs)
        self._max_value = _MAX_VALUE_BYTES + _INPUT_SHARE * weight
        self._max_made = _MAX_MADE_BYTES + 2 * _INPUT_SHARE * weight

    def step(self, count: int = 1) -> None:
        """Count so many steps.

        Raises:
            CostError: they are too many, or have taken too long.
        """
        self._steps += count
        if self._steps > self._next_look:
            self._next_look = self._steps + _STEPS_PER_LOOK
            if self._steps > _MAX_STEPS or time.thread_time() - self._began_s > _MAX_SECONDS:
                raise CostError(f"it takes more than {_MAX_STEPS} steps, or {_MAX_SECONDS:g} seconds")

    def look(self, num_bytes: int) -> None:
        """Count an operation that looks at so many bytes.

        Raises:
            CostError: as ``step``.
        """
        self.step(1 + num_bytes // _BYTES_PER_STEP)

    def expect(self, num_bytes: int) -> None:
        """Refuse a value before it is made, if it is to have so many bytes.

        Raises:
            CostError: no prompt needs a value as large.
        """
        if num_bytes > self._max_value:
            raise CostError(f"it makes a value of {num_bytes} bytes, more than any prompt needs")

    def make(self, num_bytes: int) -> None:
        """Count so many bytes that have been made.

        Raises:
            CostError: all that was made is too much.
        """
        self._bytes += num_bytes
        self.look(num_bytes)
        if self._bytes > self._max_made:
            raise CostError(f"it makes more than {self._max_made} bytes")

    def made(self, value: Any) -> Any:
        """Count a value that an operation has made, and refuse one that is too heavy.

        Raises:
            CostError: it is, or all that was made is.
        """
        if isinstance(value, int) and value.bit_length() > _MAX_BITS:
            raise CostError("it makes a number of more than a thousand digits")
        if isinstance(value, (str, bytes, list, tuple, dict, set, frozenset)):
            self.expect(self.weigh(value))
            self.make(sys.getsizeof(value))
        return value

    def weigh(self, value: Any) -> int:
        """Bytes of a value, with all that it holds."""
        return self._measure(value, 0)[0]

    def depth(self, value: Any) -> int:
        """How deep lists and objects of a value lie in each other."""
        return self._measure(value, 0)[1]

    def _measure(self, value: Any, depth: int) -> tuple[int, int]:
        if value is None or isinstance(value, (str, bytes, int, float, range)):
            return sys.getsizeof(value) + (8 * len(value) if isinstance(value, range) else 0), 0
        if isinstance(value, Namespace):
            if depth:
                # Measured once, it could still grow.
                raise CostError("it keeps a namespace inside something else")
            return self._sum((*value._Namespace__attrs.values(),), value, 0)
        if isinstance(value, (list, tuple, set, frozenset)):
            return self._remembered(value, tuple(value), depth)
        if isinstance(value, dict):
            return self._remembered(value, (*value.keys(), *value.values()), depth)
        if isinstance(value, Undefined):
            return 64, 0
        if isinstance(value, (type({}.keys()), type({}.values()), type({}.items()))):
            return self._sum(tuple(value), value, depth)
        return 256, 0  # macros, loops and functions, which print in a few characters

    def _remembered(self, value: Any, parts: tuple[Any, ...], depth: int) -> tuple[int, int]:
        found = self._measured.get(id(value))
        if found is None:
            # Kept, so that no other value gets its id.
            found = self._measured[id(value)] = (value, *self._sum(parts, value, depth))
        return found[1:]

    def _sum(self, parts: tuple[Any, ...], value: Any, depth: int) -> tuple[int, int]:
        if depth > _MAX_DEPTH:
            raise CostError(f"something is nested more than {_MAX_DEPTH} deep")
        self.step(len(parts) // 8)
        weight, deepest = sys.getsizeof(value), 0
        for part in parts:
            own, below = self._measure(part, depth + 1)
            weight += own
            deepest = max(deepest, below + 1)
        if deepest > _MAX_DEPTH:
            raise CostError(f"something is nested more than {_MAX_DEPTH} deep")
        return weight, deepest
