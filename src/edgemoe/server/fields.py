"""Reading a JSON body field by field: a value is checked where it is read, and the error names the field."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgemoe.server.failures import Failure, refused, unsupported

MAX_DIGITS = 1000  # of a number; more would only wear out the processor
MAX_DEPTH = 64  # of nested JSON; deeper bodies would only wear out the parser
HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")  # maybe: most come in pairs


def parse_body(data: bytes) -> Mapping[str, Any]:
    """The JSON object of a request's body.

    Raises:
        Failure: it is no JSON, no object, or nested too deeply.
    """
    try:
        value = json.loads(data, parse_constant=_no_constant, parse_int=_integer)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise Failure(400, f"the body is not JSON: {error}", "invalid_json") from None
    if not isinstance(value, dict):
        raise Failure(400, "the body must be a JSON object", "invalid_json")
    _check_depth(value)
    return mended(value) if HALF_CHARACTER.search(data) else value


def mended(value: Any) -> Any:
    """The value without halves of characters: clients that cut texts by UTF-16 send them, and keep them."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [mended(inner) for inner in value]
    return {mended(key): mended(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def counts_each(fields: Fields) -> bool:
    """Whether each chunk of a stream is to tell the tokens so far, in vLLM's words."""
    options = fields.inner("stream_options")
    return options is not None and options.flag("include_usage") and options.flag("continuous_usage_stats")


def _too_deep() -> Failure:
    return Failure(400, f"the body is nested more than {MAX_DEPTH} deep", "invalid_json")


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise _too_deep()
        level = [inner for outer in level for inner in _children(outer)]


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


class Fields:
    """Typed access to the fields of an object. A null counts as left out."""

    def __init__(self, body: Any, path: str = "") -> None:
        if not isinstance(body, dict):
            raise refused(path or "body", "must be an object")
        self.body: Mapping[str, Any] = body
        self.path = path
        self._read: set[str] = set()

    def name(self, field: str) -> str:
        """The field as the client would find it, such as ``messages[0].role``."""
        return f"{self.path}.{field}" if self.path else field

    def get(self, field: str) -> Any:
        """The value as it came, or None."""
        self._read.add(field)
        return self.body.get(field)

    def fail(self, field: str, why: str) -> Failure:
        """An error that names the field."""
        return refused(self.name(field), why)

    def text(self, field: str, default: str | None = None, *, is_needed: bool = False) -> str | None:
        """A string."""
        value = self.get(field)
        if value is None:
            if is_needed:
                raise self.fail(field, "is missing")
            return default
        if not isinstance(value, str):
            raise self.fail(field, "must be a string")
        return value

    def needed_text(self, field: str) -> str:
        """A string that must be there."""
        value = self.text(field, is_needed=True)
        assert value is not None
        return value

    def choice(self, field: str, allowed: Sequence[str], default: str | None = None) -> str | None:
        """One of a few strings."""
        value = self.text(field, default)
        if value is not None and value not in allowed:
            raise self.fail(field, f"is {value!r}; it must be one of {', '.join(allowed)}")
        return value

    def number(self, field: str, low: float, high: float) -> float | None:
        """A number within bounds, ends included."""
        value = self.get(field)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.fail(field, "must be a number")
        if not low <= value <= high:
            raise self.fail(field, f"is {value}; it must be between {low} and {high}")
        return float(value)

    def integer(self, field: str, low: int, high: int) -> int | None:
        """A whole number within bounds, ends included."""
        value = self.get(field)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fail(field, "must be a whole number")
        if not low <= value <= high:
            raise self.fail(field, f"is {value}; it must be between {low} and {high}")
        return value

    def flag(self, field: str, default: bool = False) -> bool:
        """True or false."""
        value = self.get(field)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.fail(field, "must be true or false")
        return value

    def items(self, field: str, most: int) -> list[Any]:
        """A list, maybe empty."""
        value = self.get(field)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.fail(field, "must be a list")
        if len(value) > most:
            raise self.fail(field, f"has {len(value)} entries; at most {most} are taken")
        return value

    def inner(self, field: str) -> Fields | None:
        """An object within this one."""
        value = self.get(field)
        return None if value is None else Fields(value, self.name(field))

    def mapping(self, field: str) -> dict[str, Any]:
        """An object as it came; empty when left out."""
        value = self.get(field)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.fail(field, "must be an object")
        return value

    def texts(self, field: str, most: int, longest: int) -> tuple[str, ...]:
        """A string, or a list of them; none empty."""
        value = self.get(field)
        if value is None:
            return ()
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
            raise self.fail(field, "must be a string or a list of strings")
        if len(values) > most or any(len(text) > longest for text in values):
            raise self.fail(field, f"takes at most {most} texts of {longest} characters")
        return tuple(text for text in values if text)

    def refuse(self, harmless: Mapping[str, Sequence[Any]], why: str) -> None:
        """Refuse fields we do not act on, unless they have a value that changes nothing."""
        for field, values in harmless.items():
            value = self.get(field)
            if value is not None and value not in values:
                raise unsupported(self.name(field), why)

    def unread(self) -> list[str]:
        """Fields nobody asked for: they change nothing, and the client is told so by a header."""
        return sorted(set(self.body) - self._read)
