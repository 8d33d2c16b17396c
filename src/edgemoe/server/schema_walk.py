"""Every schema within a schema, told from values and from maps of names to schemas."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_VALUES = {"const", "enum", "default", "examples"}
_MAPS = {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}


def rewritten(schema: Schema, change: Callable[[Schema], Schema]) -> dict[str, Any]:
    """The schema with a change made to it and to each within it, from the outside in."""
    out: dict[str, Any] = {}
    for keyword, value in change(schema).items():
        if keyword in _VALUES:
            out[keyword] = value
        elif keyword in _MAPS and isinstance(value, dict):
            out[keyword] = {name: _inner(each, change) for name, each in value.items()}
        else:
            out[keyword] = _inner(value, change)
    return out


def schemas_of(schema: Schema) -> Iterator[Schema]:
    """The schema and all within it."""
    found: list[Schema] = []

    def note(each: Schema) -> Schema:
        found.append(each)
        return each

    rewritten(schema, note)
    yield from found


def without_nulls(schema: Schema) -> dict[str, Any]:
    """A schema without keywords that are null: programs write them for what nobody set."""
    return rewritten(schema, _said)


def _said(schema: Schema) -> Schema:
    said = {k: v for k, v in schema.items() if v is not None or k in _VALUES - {"enum"}}
    maps = {keyword: said[keyword] for keyword in _MAPS & said.keys() if isinstance(said[keyword], dict)}
    return said | {
        keyword: {name: {} if each is None else each for name, each in value.items()}
        for keyword, value in maps.items()
    }


def _inner(value: Any, change: Callable[[Schema], Schema]) -> Any:
    if isinstance(value, dict):
        return rewritten(value, change)
    return [_inner(each, change) for each in value] if isinstance(value, list) else value
