"""Checks of what callers of the Python interface pass: the kind of each value, before any work.

Integers may be NumPy's, numbers any real ones; true and false are neither. Nothing is cut or rounded to fit:
bytes are not taken for token ids, nor 2.5 for two.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from edgemoe.errors import RequestError

_SHOWN_CHARACTERS = 60  # of a value that a message quotes
_MOST_DIGITS = 20  # of a token id as text; Python reads no integer of more than 4300


def whole(name: str, value: Any, at_least: int) -> int:
    """An integer from ``at_least`` on.

    Raises:
        RequestError: it is none.
    """
    found = _index(value)
    if found is None:
        raise RequestError(f"{name} is {_shown(value)}; it must be a whole number")
    if found < at_least:
        raise RequestError(f"{name} is {_shown(value)}; it must be at least {at_least}")
    return found


def number(name: str, value: Any) -> float:
    """A number, which may be infinite or none at all (NaN).

    Raises:
        RequestError: it is of another kind, or beyond what a float holds.
    """
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            pass
    raise RequestError(f"{name} is {_shown(value)}; it must be a number")


def token_ids(name: str, value: Any) -> list[int]:
    """Token ids in any kind of sequence, arrays of one axis among them.

    Raises:
        RequestError: it is something else; the message says what.
    """
    if isinstance(value, str | bytes | bytearray | memoryview):
        raise RequestError(f"{name} is {type(value).__name__}, not token ids; give text as str")
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise RequestError(f"{name} is of type {type(value).__name__}; give a text, or token ids as a list")
    as_list = getattr(value, "tolist", None)  # arrays and tensors: an axis at a time is slow
    ids = list(as_list()) if callable(as_list) and getattr(value, "ndim", 1) != 0 else list(value)
    found = [_index(token_id) for token_id in ids]
    if None in found:
        wrong = ids[found.index(None)]
        hint = "; give one text at a time" if isinstance(wrong, Iterable) else ""
        raise RequestError(f"{name} has {_shown(wrong)}, which is no token id{hint}")
    return found  # type: ignore[return-value]


def texts(name: str, value: Any) -> tuple[str, ...]:
    """A text or several, or None for none.

    Raises:
        RequestError: it is something else.
    """
    if value is None:
        return ()
    found = (value,) if isinstance(value, str | bytes) or not isinstance(value, Iterable) else tuple(value)
    for text in found:
        if not isinstance(text, str):
            raise RequestError(f"{name} has {_shown(text)}; give a text, or several")
    return found


def biases(name: str, value: Any) -> dict[int, float]:
    """What is added to tokens' logits, by their ids; these may be decimal digits, as JSON has them.

    Raises:
        RequestError: it is no such table.
    """
    if not isinstance(value, Mapping):
        raise RequestError(f"{name} is {_shown(value)}; give a table such as {{token id: number}}")
    return {_bias_id(name, key): _bias(f"{name} of {key}", bias) for key, bias in value.items()}


def _bias_id(name: str, key: Any) -> int:
    is_digits = isinstance(key, str) and key.isascii() and key.isdecimal() and len(key) < _MOST_DIGITS
    found = int(key) if is_digits else _index(key)
    if found is None:
        raise RequestError(f"{name} has the key {_shown(key)}, which is no token id")
    return found


def _bias(name: str, value: Any) -> float:
    found = number(name, value)
    if math.isnan(found) or found == math.inf:
        raise RequestError(f"{name} is {found}; it must be a number")
    return found


def _index(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # integers of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def template_options(options: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Values for a chat template, by their names, as they were given; none: an empty table.

    Raises:
        RequestError: they are no table, or have a name that is none, or that of the conversation.
    """
    if options is not None and not isinstance(options, Mapping):
        raise RequestError(f"template_options is {options!r:.60}; give a table of names and values")
    unnamed = next((name for name in options or () if not isinstance(name, str)), None)
    if unnamed is not None:
        raise RequestError(f"template_options has the name {unnamed!r:.60}; names are texts")
    if options and "messages" in options:
        raise RequestError("template_options has 'messages', which are the conversation itself")
    return options or {}
