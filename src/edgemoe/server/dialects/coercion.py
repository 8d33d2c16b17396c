"""Arguments that a model wrote as bare text, as the values that the function's schema asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

from edgemoe.server.dialects.json_span import load_json

_WORDS = {"true": True, "false": False, "null": None, "none": None}


def coerce(text: str, schema: Mapping[str, Any]) -> Any:
    """The value of a text by its schema; the text itself if that allows one or nothing else fits."""
    types = tuple(_types(schema))
    if not types:
        value = load_json(text)
        return text if value is ... else value
    for kind in types:
        value = _coerce_to(kind, text)
        if value is not ...:
            return value
    return text


def property_schema(schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What a function's parameters say of one of them; nothing if they do not know it."""
    found = (schema.get("properties") or {}).get(name, {})
    return found if isinstance(found, dict) else {}


def _types(schema: Mapping[str, Any]) -> Iterator[str]:
    declared = schema.get("type")
    if isinstance(declared, str):
        yield declared
    elif isinstance(declared, list):
        yield from sorted((t for t in declared if isinstance(t, str)), key=lambda t: t == "string")
    for union in ("anyOf", "oneOf"):
        for choice in schema.get(union) or ():
            if isinstance(choice, dict):
                yield from _types(choice)
    if declared is None and isinstance(schema.get("enum"), list):
        yield from {"string" for value in schema["enum"] if isinstance(value, str)}


def _coerce_to(kind: str, text: str) -> Any:
    if kind == "string":
        return text
    word = text.strip()
    if kind in {"boolean", "null"}:
        value = _WORDS.get(word.lower(), ...)
        return value if (kind == "null") == (value is None) else ...
    value = load_json(word)
    if kind in {"object", "array"}:
        return value if isinstance(value, dict if kind == "object" else list) else ...
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    if not is_number:
        return ...
    if kind == "integer":
        return int(value) if value == int(value) else ...
    return value if kind == "number" else ...
