"""References of schemas as llguidance takes them: addresses, in which some characters need a code. Programs
name definitions after their types (``List<Item>``, ``Page[Item]``), and write such names as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

_LEFT = "/%:@!$&'()*+,;=?#~"  # have a meaning there, or need no code
_VALUES = {"const", "enum", "default", "examples"}  # which are no schemas


def with_coded_references(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with references that are addresses."""
    return {name: value if name in _VALUES else _coded(name, value) for name, value in schema.items()}


def _coded(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return with_coded_references(value)
    if isinstance(value, list):
        return [_coded("", each) for each in value]
    return quote(value, safe=_LEFT) if name == "$ref" and isinstance(value, str) else value
