"""How large the results of a template's operations can be, worked out from what they are given.

Only what stands in these tables may be called: a method or filter of which nobody has worked that out is
refused. ``make_*`` run before the operation does.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from edgemoe.text.meter import MAX_ARGUMENT, CostError, Meter

_SPACES = " \n\t\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
_WIDTHS = re.compile(r"\d+")
_PIECE = 64  # bytes of a short text in a list

Arguments = tuple[Any, ...]
Bound = Callable[[Meter, Any, Arguments, Mapping[str, Any]], int]


def check_numbers(values: Arguments, named: Mapping[str, Any]) -> None:
    """Refuse widths and counts that no prompt needs.

    Raises:
        CostError: one is larger than MAX_ARGUMENT.
    """
    for value in (*values, *named.values()):
        if isinstance(value, int) and abs(value) > MAX_ARGUMENT:
            raise CostError(f"it asks for {str(value)[:20]} of something")


def _own(meter: Meter, text: Any, args: Arguments, named: Mapping[str, Any]) -> int:
    """At most a few times what it is given."""
    return 4 * meter.weigh(text) + sum(map(meter.weigh, (*args, *named.values())))


def _length(text: Any) -> int:
    return len(text) if isinstance(text, str) else 0


def _char_bytes(*texts: Any) -> int:
    return 4 if any(isinstance(text, str) and not text.isascii() for text in texts) else 1


def _padded(meter: Meter, text: Any, args: Arguments, named: Mapping[str, Any]) -> int:
    return 4 * (_length(text) + MAX_ARGUMENT)


def _tabs(meter: Meter, text: Any, args: Arguments, named: Mapping[str, Any]) -> int:
    width = max((abs(v) for v in (*args, *named.values()) if isinstance(v, int)), default=8)
    return _char_bytes(text) * (_length(text) + str(text).count("\t") * width)


def _replaced(meter: Meter, text: Any, args: Arguments, named: Mapping[str, Any]) -> int:
    values = [*args, *named.values()]
    old, new = (str(values[0]), str(values[1])) if len(values) > 1 else ("", "")
    count = str(text).count(old) if old else _length(str(text)) + 1
    return _char_bytes(text, new) * (_length(str(text)) + count * len(new))


def _split(meter: Meter, text: Any, args: Arguments, named: Mapping[str, Any]) -> int:
    by = args[0] if args else named.get("sep")
    count = str(text).count(by) if isinstance(by, str) and by else sum(map(str(text).count, _SPACES))
    return 4 * _length(text) + _PIECE * (count + 2)


def _joined(meter: Meter, by: Any, args: Arguments, named: Mapping[str, Any]) -> int:
    parts = args[0] if args else ()
    num_parts = len(parts) if hasattr(parts, "__len__") else MAX_ARGUMENT
    return meter.weigh(parts) + 4 * num_parts * _length(by)


def _listed(meter: Meter, value: Any, args: Arguments, named: Mapping[str, Any]) -> int:
    return meter.weigh(value) + (_PIECE * len(value) if isinstance(value, str) else 0)


METHODS: dict[type, dict[str, Bound]] = {
    str: {
        **dict.fromkeys(
            ("capitalize", "casefold", "count", "endswith", "find", "index", "lower", "lstrip", "partition",
             "removeprefix", "removesuffix", "rfind", "rindex", "rpartition", "rstrip", "startswith", "strip",
             "swapcase", "title", "upper", "isalnum", "isalpha", "isascii", "isdecimal", "isdigit",
             "isidentifier", "islower", "isnumeric", "isprintable", "isspace", "istitle", "isupper",
             "encode"),
            _own,
        ),
        **dict.fromkeys(("center", "ljust", "rjust", "zfill"), _padded),
        "expandtabs": _tabs,
        "replace": _replaced,
        **dict.fromkeys(("split", "rsplit", "splitlines"), _split),
        "join": _joined,
    },
    dict: dict.fromkeys(("get", "items", "keys", "values", "copy", "fromkeys"), _own),
    list: dict.fromkeys(("count", "index", "copy"), _own),
    tuple: dict.fromkeys(("count", "index"), _own),
    int: dict.fromkeys(("bit_length", "is_integer", "conjugate"), _own),
    float: dict.fromkeys(("is_integer", "conjugate"), _own),
}  # fmt: skip


def _json(meter: Meter, value: Any, args: Arguments, named: Mapping[str, Any]) -> int:
    indent = named.get("indent", args[1] if len(args) > 1 else 0) or 0
    by = indent if isinstance(indent, int) else _length(indent)
    if by > 64:
        raise CostError(f"it indents by {by}")
    extra = sum(_length(s) for s in named.get("separators") or ())
    # Up to six characters for one, and a line for each entry.
    return meter.weigh(value) * (6 + extra) + meter.weigh(value) // 16 * by * (meter.depth(value) + 1)


def _indented(meter: Meter, text: Any, args: Arguments, named: Mapping[str, Any]) -> int:
    width = named.get("width", args[0] if args else 4)
    by = width if isinstance(width, int) else _length(width)
    return 4 * (_length(text) + (str(text).count("\n") + 1) * abs(by))


def _wrapped(meter: Meter, text: Any, args: Arguments, named: Mapping[str, Any]) -> int:
    # Textwrap is slow; nothing that long is wrapped in a prompt.
    if _length(text) > 2 * MAX_ARGUMENT or any(_length(v) > 16 for v in (*args, *named.values())):
        raise CostError("it wraps too long a text")
    return 4 * 18 * _length(text)


def _filled(meter: Meter, value: Any, args: Arguments, named: Mapping[str, Any]) -> int:
    return meter.weigh(value) + 8 * MAX_ARGUMENT


def _joined_by(meter: Meter, parts: Any, args: Arguments, named: Mapping[str, Any]) -> int:
    return _joined(meter, named.get("d", args[0] if args else ""), (parts,), {})


def _summed(meter: Meter, values: Any, args: Arguments, named: Mapping[str, Any]) -> int:
    start = named.get("start", args[1] if len(args) > 1 else 0)
    if not isinstance(start, int | float):
        raise CostError("it sums what are no numbers")
    return 64


def _formatted(meter: Meter, text: Any, args: Arguments, named: Mapping[str, Any]) -> int:
    return format_bound(meter, text, (*args, *named.values()))


def _light(meter: Meter, value: Any, args: Arguments, named: Mapping[str, Any]) -> int:
    return 0


def _escaped(meter: Meter, value: Any, args: Arguments, named: Mapping[str, Any]) -> int:
    return 9 * meter.weigh(value)


def _pretty(meter: Meter, value: Any, args: Arguments, named: Mapping[str, Any]) -> int:
    # It is slow for what it gives.
    weight = meter.weigh(value)
    meter.step(weight // 16)
    return 2 * weight * (meter.depth(value) + 1)


def _worded(meter: Meter, text: Any, args: Arguments, named: Mapping[str, Any]) -> int:
    # A list of words on the way.
    return _PIECE * _length(text) + meter.weigh(text)


FILTERS: dict[str, Bound] = {
    # What these take is looked at as far as it is used: by its length, or entry by entry.
    **dict.fromkeys(
        ("length", "count", "first", "last", "default", "d", "map", "select", "reject", "selectattr",
         "rejectattr", "reverse", "attr", "items", "abs", "float", "int", "round", "random",
         "filesizeformat", "safe"),
        _light,
    ),
    **dict.fromkeys(
        ("capitalize", "lower", "upper", "trim", "string", "min", "max", "sort", "unique", "groupby",
         "dictsort", "truncate"),
        _own,
    ),
    **dict.fromkeys(("e", "escape", "forceescape", "urlencode", "xmlattr"), _escaped),
    "pprint": _pretty,
    "wordcount": _worded,
    "title": _worded,
    "list": _listed,
    "tojson": _json,
    "indent": _indented,
    "wordwrap": _wrapped,
    "batch": _filled,
    "slice": _filled,
    "join": _joined_by,
    "replace": _replaced,
    "center": _padded,
    "sum": _summed,
    "format": _formatted,
}  # fmt: skip


def format_bound(meter: Meter, text: Any, values: Arguments) -> int:
    """Bytes of a text with places for values, by "%" or by "{}".

    Raises:
        CostError: a place is wider than any prompt needs.
    """
    text = str(text)
    widths = [int(width) for width in _WIDTHS.findall(text) if len(width) < 19] or [0]
    if max(widths) > MAX_ARGUMENT or any(len(w) >= 19 for w in _WIDTHS.findall(text)):
        raise CostError("it formats to a width that no prompt needs")
    check_numbers(values if "*" in text or ("{" in text.replace("{{", "") and ":{" in text) else (), {})
    num_places = text.count("%") + text.count("{")
    widest: int = max(widths) + (MAX_ARGUMENT if "*" in text or ":{" in text else 0)
    return int(4 * (len(text) + num_places * (meter.weigh(values) + widest)))


def binary_bound(meter: Meter, operator: str, left: Any, right: Any) -> int:
    """Bytes of the result of an operator."""
    if operator == "%" and isinstance(left, (str, bytes)):
        return format_bound(meter, left, right if isinstance(right, tuple) else (right,))
    if operator == "*":
        for many, count in ((left, right), (right, left)):
            if isinstance(many, (str, bytes, list, tuple)) and isinstance(count, int):
                return max(0, count) * (
                    meter.weigh(many) if not isinstance(many, str) else sys.getsizeof(many)
                )
    if operator == "**" and isinstance(left, int) and isinstance(right, int):
        return int(0 if right < 0 else max(1, left.bit_length()) * right << 13)
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return 0
    return meter.weigh(left) + meter.weigh(right)
