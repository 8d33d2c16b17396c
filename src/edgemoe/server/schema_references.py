"""References of schemas as llguidance takes them: addresses, in which some characters need a code. Programs
name definitions after their types (``List<Item>``, ``Page[Item]``), and write such names as they are.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from edgemoe.server.schema_walk import Schema, rewritten

_LEFT = "/%:@!$&'()*+,;=?#~"  # have a meaning there, or need no code


def with_coded_references(schema: Schema) -> dict[str, Any]:
    """The schema with references that are addresses."""
    return rewritten(schema, _coded)


def _coded(schema: Schema) -> Schema:
    reference = schema.get("$ref")
    return {**schema, "$ref": quote(reference, safe=_LEFT)} if isinstance(reference, str) else schema
