"""Sizes and durations between people and programs: "2GiB" ↔ 2147483648, 93.5 ↔ "1 min 34 s"."""

from __future__ import annotations

import math
import re
from numbers import Real

from edgemoe.errors import RequestError

KIB = 1024
MIB = 1024**2
GIB = 1024**3

_UNITS = {
    "": 1, "b": 1,
    "k": KIB, "kib": KIB, "kb": 1000,
    "m": MIB, "mib": MIB, "mb": 1000**2,
    "g": GIB, "gib": GIB, "gb": 1000**3,
    "t": 1024**4, "tib": 1024**4, "tb": 1000**4,
}  # fmt: skip
# So few digits that no size is beyond a float.
_SIZE = re.compile(r"\s*(\d{1,40}(?:\.\d{1,40})?)\s*([a-zA-Z]*)\s*")


def parse_size(size: str | float) -> int:
    """Bytes of a size such as ``"2GiB"``, ``"1.5 GB"``, ``"800M"`` (= MiB) or a plain number.

    Raises:
        RequestError: the text is not a size, or the number not one of whole bytes.
    """
    if isinstance(size, Real) and not isinstance(size, bool) and math.isfinite(size) and size == int(size):
        return int(size)
    match = _SIZE.fullmatch(size) if isinstance(size, str) else None
    if match is None or match[2].lower() not in _UNITS:
        raise RequestError(f"{size!r} is not a size; write for example 2GiB, 800MiB or 1.5GB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def format_size(num_bytes: float) -> str:
    """A size for people, in binary units: ``"1.50 GiB"``."""
    for unit, scale in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if abs(num_bytes) >= scale:
            return f"{num_bytes / scale:.2f} {unit}"
    return f"{num_bytes:.0f} B"


def ceil_size(num_bytes: int) -> str:
    """A size rounded up to whole MiB, to KiB up to 10 MiB, that :func:`parse_size` reads: ``"513MiB"``."""
    scale, unit = (MIB, "MiB") if num_bytes > 10 * MIB else (KIB, "KiB")
    return f"{-(-num_bytes // scale)}{unit}"


def format_duration(elapsed_s: float) -> str:
    """A duration for people: ``"0.84 s"``, ``"1 min 34 s"``, ``"2 h 05 min"``."""
    if elapsed_s < 10:
        return f"{elapsed_s:.2f} s"
    seconds = round(elapsed_s)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
