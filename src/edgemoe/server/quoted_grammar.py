"""Rules of a call whose arguments come in any order, with texts between quotation marks of the family's own.

The arguments' names and kinds are held. Which of them are there is not: there would be a rule for each order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edgemoe.server.lark import literals, quoted, text_before
from edgemoe.server.tagged_grammar import kinds_of

_SCALARS = {"integer", "number", "boolean", "null"}
_KEY = '/[^<>:{}\\[\\],"\\n]{1,256}/'
_COMMA = '"," " "?'


class QuotedRules:
    """The rules of functions' calls; those of values are shared."""

    def __init__(self, quote: str, special_ids: Mapping[str, int], layout: Mapping[str, Any]) -> None:
        self._quote = literals(quote, special_ids)
        self._layout = layout
        scalar = json.dumps({"type": sorted(_SCALARS), "x-guidance": layout})
        self.lines = [
            *(text_before(quote, special_ids, "quoted_rest") or []),
            f"quoted_text: {self._quote} quoted_rest",
            f"quoted_scalar: %json {scalar}",
            f'quoted_list: "[" (quoted_value ({_COMMA} quoted_value)*)? "]"',
            f'quoted_object: "{{" (quoted_pair ({_COMMA} quoted_pair)*)? "}}"',
            f'quoted_pair: {_KEY} ":" quoted_value',
            "quoted_value: quoted_text | quoted_scalar | quoted_list | quoted_object",
        ]

    def arguments(self, schema: Mapping[str, Any], prefix: str) -> str:
        """All arguments of a function, with the braces around them."""
        properties = schema.get("properties")
        if not isinstance(properties, dict) or schema.get("additionalProperties", False) is not False:
            return "quoted_object"
        if not properties:
            return quoted("{}")
        pairs = [f"{quoted(name + ':')} {self._value(inner)}" for name, inner in properties.items()]
        self.lines.append(f"{prefix}_pair: {' | '.join(pairs)}")
        return f'"{{" ({prefix}_pair ({_COMMA} {prefix}_pair)*)? "}}"'

    def _value(self, schema: Any) -> str:
        schema = schema if isinstance(schema, dict) else {}
        kinds, choices = kinds_of(schema), schema.get("enum")
        if isinstance(choices, list) and choices and all(isinstance(choice, str) for choice in choices):
            return f"{self._quote} ({' | '.join(map(quoted, choices))}) {self._quote}"
        if kinds and kinds <= _SCALARS:
            return f"%json {json.dumps({**schema, 'x-guidance': self._layout})}"
        rules = {"string": "quoted_text", "array": "quoted_list", "object": "quoted_object"}
        return rules.get(kinds.pop(), "quoted_value") if len(kinds) == 1 else "quoted_value"
