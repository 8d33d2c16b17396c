"""Rules of a call with its arguments between tags: in the schema's order, and all that are required there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from edgemoe.server.dialects import TaggedForm
from edgemoe.server.lark import literals, quoted, text_before

_JSON_TYPES = {"integer", "number", "boolean", "null", "object", "array"}
# What models write by themselves, who have read much Python.
_WORDS = (("boolean", "True"), ("boolean", "False"), ("null", "None"))
# Where a schema has these, its arguments are not simply its properties.
_COMPOUND = {"$ref", "allOf", "anyOf", "oneOf", "patternProperties", "if", "not"}
_SHARED = ("$defs", "definitions")
_NAME = '/[^<>"\\n]{1,256}/'


def kinds_of(schema: Mapping[str, Any]) -> set[str]:
    """The types that a schema allows, as far as it says."""
    kinds = schema.get("type")
    return {str(kind) for kind in (kinds if isinstance(kinds, list) else [kinds]) if kind is not None}


def is_plain(schema: Mapping[str, Any]) -> bool:
    """Whether a function's arguments are simply the properties that its schema names."""
    return isinstance(schema.get("properties"), dict) and not schema.keys() & _COMPOUND


class TaggedRules:
    """The rules of one function's call in one form; their names begin with ``prefix``."""

    def __init__(
        self, form: TaggedForm, special_ids: Mapping[str, int], layout: Mapping[str, Any], prefix: str
    ) -> None:
        self._form = form
        self._special_ids = special_ids
        self._layout = layout
        self._prefix = prefix
        self.lines = text_before(form.closes, special_ids, f"{prefix}_text") or []

    @property
    def is_possible(self) -> bool:
        """Whether a grammar can say where a text ends."""
        return bool(self.lines)

    def arguments(self, schema: Mapping[str, Any]) -> str:
        """What stands between a call's head and tail."""
        if not is_plain(schema):
            return self._others()
        properties = schema["properties"]
        required = schema.get("required")
        required = required if isinstance(required, list) else []
        shared = {key: schema[key] for key in _SHARED if key in schema}
        parts = []
        for place, (name, inner) in enumerate(properties.items()):
            rule = f"{self._prefix}_{place}"
            values = self._values(name, inner if isinstance(inner, dict) else {}, shared)
            self.lines.append(f"{rule}: {' | '.join(values)}")
            parts.append(rule if name in required else f"{rule}?")
        is_open = schema.get("additionalProperties", False) is not False
        return " ".join([*parts, *([self._others()] if is_open else [])])

    def _values(self, name: str, schema: Mapping[str, Any], shared: Mapping[str, Any]) -> Iterator[str]:
        closes = literals(self._form.closes, self._special_ids)
        choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
        kinds = kinds_of(schema)
        if isinstance(choices, list) and choices and all(isinstance(choice, str) for choice in choices):
            yield f"{self._open(name)} ({' | '.join(map(quoted, choices))}) {closes}"
        elif kinds == {"string"}:
            yield f"{self._open(name)} {self._prefix}_text"
        elif kinds and kinds <= _JSON_TYPES:
            value = json.dumps({**schema, **shared, "x-guidance": self._layout})
            yield f"{self._open_json(name)} %json {value} {closes}"
            if words := [word for kind, word in _WORDS if kind in kinds]:
                yield f"{self._open_json(name)} ({' | '.join(map(quoted, words))}) {closes}"
        else:  # of several kinds, or of none that is said
            yield f"{self._open(name)} {self._prefix}_text"
            if self._form.opens_json is not None:
                yield f"{self._open_json(name)} %json {json.dumps({'x-guidance': self._layout})} {closes}"

    def _open(self, name: str) -> str:
        return literals(self._form.opens.replace("{name}", name), self._special_ids)

    def _open_json(self, name: str) -> str:
        opens = self._form.opens_json or self._form.opens
        return literals(opens.replace("{name}", name), self._special_ids)

    def _others(self) -> str:
        """Any arguments."""
        before, _, after = self._form.opens.partition("{name}")
        opens = f"{literals(before, self._special_ids)} {_NAME} {literals(after, self._special_ids)}"
        self.lines.append(f"{self._prefix}_other: {opens} {self._prefix}_text")
        return f"{self._prefix}_other*"
