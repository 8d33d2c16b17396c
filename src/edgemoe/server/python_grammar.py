"""Rules of calls that are written as Python writes them: arguments by name, in the schema's order, and all
that are required. What stands within lists and objects is not held.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from edgemoe.server.lark import quoted
from edgemoe.server.tagged_grammar import is_plain, kinds_of

_NUMBERS = {"integer", "number"}
_COMMA = '"," " "?'
_WORDS = {"boolean": ("True", "False", "true", "false"), "null": ("None", "null")}
# An apostrophe before a letter or a digit ends no text: templates show texts without escapes.
_LINES = (
    r"""python_text: /"(?s:[^"\\]|\\.)*"/ | /'(?s:[^'\\]|\\.|'[A-Za-z0-9])*'/""",
    f'python_list: "[" (python_value ({_COMMA} python_value)*)? "]"',
    f'python_object: "{{" (python_entry ({_COMMA} python_entry)*)? "}}"',
    'python_entry: python_text ":" " "? python_value',
    "python_word: " + " | ".join(quoted(word) for words in _WORDS.values() for word in words),
    "python_value: python_text | python_number | python_word | python_list | python_object",
    'python_pair: /[A-Za-z_][A-Za-z_0-9]*/ "=" python_value',
)  # fmt: skip


class PythonRules:
    """The rules of functions' arguments; those of values are shared."""

    def __init__(self, layout: Mapping[str, Any]) -> None:
        self._layout = layout
        number = json.dumps({"type": "number", "x-guidance": layout})
        self.lines = [*_LINES, f"python_number: %json {number}"]

    def arguments(self, schema: Mapping[str, Any], prefix: str) -> str:
        """All arguments of a function, with the brackets around them."""
        if not is_plain(schema) or schema.get("additionalProperties", False) is not False:
            return f'"(" (python_pair ({_COMMA} python_pair)*)? ")"'
        required = schema.get("required")
        required = required if isinstance(required, list) else []
        pairs = [
            (f"{quoted(name + '=')} ({self._value(inner)})", name in required)
            for name, inner in schema["properties"].items()
        ]
        self._chain(pairs, prefix)
        return f'"(" {prefix}_first_0 ")"'

    def _chain(self, pairs: Sequence[tuple[str, bool]], prefix: str) -> None:
        """Rules of what may stand from each argument on: the first that is there has no comma before it."""
        for place, (pair, is_required) in enumerate(pairs):
            self.lines.append(f"{prefix}_pair_{place}: {pair}")
            for rule, comma in (("first", ""), ("more", _COMMA)):
                skips = "" if is_required else f" | {prefix}_{rule}_{place + 1}"
                with_pair = f"{comma} {prefix}_pair_{place} {prefix}_more_{place + 1}"
                self.lines.append(f"{prefix}_{rule}_{place}: {with_pair}{skips}")
        self.lines += [f'{prefix}_{rule}_{len(pairs)}: ""' for rule in ("first", "more")]

    def _value(self, schema: Any) -> str:
        schema = schema if isinstance(schema, dict) else {}
        kinds = kinds_of(schema)
        choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if isinstance(choices, list) and choices and all(isinstance(choice, str) for choice in choices):
            return " | ".join(text for choice in choices for text in _texts(choice))
        if not kinds or not kinds <= {*_NUMBERS, *_WORDS, "string", "array", "object"}:
            return "python_value"
        out = [quoted(word) for kind in sorted(kinds & _WORDS.keys()) for word in _WORDS[kind]]
        if numbers := sorted(kinds & _NUMBERS):
            value = {key: inner for key, inner in schema.items() if key != "type"}
            out.append(f"%json {json.dumps({**value, 'type': numbers, 'x-guidance': self._layout})}")
        rules = {"string": "python_text", "array": "python_list", "object": "python_object"}
        return " | ".join([*out, *(rules[kind] for kind in sorted(kinds & rules.keys()))])


def _texts(choice: str) -> list[str]:
    """A text in either kind of quotation marks."""
    escaped = choice.replace("\\", "\\\\").replace("\n", "\\n")
    return [quoted("'" + escaped.replace("'", "\\'") + "'"), quoted('"' + escaped.replace('"', '\\"') + '"')]
