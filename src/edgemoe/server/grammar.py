"""Grammars in llguidance's Lark: JSON of a schema, and calls of functions as a family writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

# Whitespace of a fixed kind: a free choice is an invitation to write nothing but spaces.
_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def json_grammar(schema: Mapping[str, Any]) -> str:
    """A grammar of the JSON values of a schema."""
    return json.dumps({"grammars": [{"json_schema": _laid_out(schema, is_lenient=False)}]})


def call_grammar(
    tools: Sequence[Mapping[str, Any]], form: tuple[str, str], special_ids: Mapping[str, int]
) -> str:
    """A grammar of one call of one of the functions.

    ``form`` is what stands before and after the arguments' JSON, ``{name}`` for the function's name.
    ``special_ids`` are tokens that stand for their text as a whole.
    """
    rules = [f"start: {' | '.join(f'call_{n}' for n in range(len(tools)))}"]
    for number, tool in enumerate(tools):
        function = tool["function"]
        before, after = (_literals(part.replace("{name}", function["name"]), special_ids) for part in form)
        schema = _closed({"type": "object"} | dict(function.get("parameters") or {}))
        rules.append(f"call_{number}: {before} arguments_{number} {after}")
        rules.append(f"arguments_{number}: %json {json.dumps(_laid_out(schema, is_lenient=True))}")
    lark = "\n".join(rules)
    return json.dumps({"grammars": [{"lark_grammar": lark}]})


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a function: those it names and no others, unless it says otherwise. Schemas allow others
    where nothing is said, and small models go on making some up.
    """
    is_open = schema.keys() & {"$ref", "allOf", "anyOf", "oneOf", "patternProperties", "additionalProperties"}
    return schema | ({"additionalProperties": False} if "properties" in schema and not is_open else {})


def _laid_out(schema: Mapping[str, Any], *, is_lenient: bool) -> dict[str, Any]:
    """A schema with its layout; lenient: keywords that cannot be kept to are only advice."""
    return dict(schema) | {"x-guidance": _LAYOUT | {"lenient": is_lenient}}


def _literals(text: str, special_ids: Mapping[str, int]) -> str:
    """A text as Lark writes it, special tokens by their numbers."""
    marks = sorted((mark for mark in special_ids if mark and mark in text), key=len, reverse=True)
    if not marks:
        return json.dumps(text, ensure_ascii=False) if text else ""
    parts = re.split("(" + "|".join(map(re.escape, marks)) + ")", text)
    shown = [f"<[{special_ids[part]}]>" if part in special_ids else json.dumps(part, ensure_ascii=False)
             for part in parts if part]  # fmt: skip
    return " ".join(shown)
