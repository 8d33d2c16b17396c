"""Whole numbers of schemas as llguidance takes them: as floats, which beyond 2^53 are not all whole numbers.

A bound becomes the next float within it, so that no number outside is written. One of the choices of an
``enum`` would be another number, so a schema with such a choice cannot be kept to.
"""

from __future__ import annotations

import math
from typing import Any

from edgemoe.server.schema_walk import Schema, rewritten, schemas_of

_LIMIT = 2**63 - 1  # where llguidance cuts bounds off, which keeps to them
_BOUNDS = {
    "minimum": math.inf,
    "exclusiveMinimum": math.inf,
    "maximum": -math.inf,
    "exclusiveMaximum": -math.inf,
}


def with_float_bounds(schema: Schema) -> dict[str, Any]:
    """The schema with bounds that are floats."""
    return rewritten(schema, _bounded)


def rounded_choice(schema: Schema) -> int | None:
    """A whole number that must be written and cannot be, if there is one."""
    for each in schemas_of(schema):
        choices = each.get("enum")
        for choice in [each.get("const"), *(choices if isinstance(choices, list) else [])]:
            if _is_whole(choice) and not _is_float(choice):
                return int(choice)
    return None


def _bounded(schema: Schema) -> Schema:
    changed = {
        keyword: _within(schema[keyword], towards)
        for keyword, towards in _BOUNDS.items()
        if _is_whole(schema.get(keyword)) and abs(schema[keyword]) < _LIMIT and not _is_float(schema[keyword])
    }
    return {**schema, **changed}


def _within(bound: int, towards: float) -> int:
    nearest = int(float(bound))
    is_within = nearest > bound if towards > 0 else nearest < bound
    return nearest if is_within else int(math.nextafter(nearest, towards))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_float(value: int) -> bool:
    try:
        return int(float(value)) == value
    except OverflowError:
        return False
