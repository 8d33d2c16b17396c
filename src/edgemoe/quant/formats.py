"""The storage formats of a weight matrix, as people choose them: by their number of bits.

The bytes themselves are specified in ``native/kernels/layout.h``; effective sizes are asked of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgemoe.errors import RequestError
from edgemoe.native import FORMATS, bits_per_weight


@dataclass(frozen=True, slots=True)
class FormatInfo:
    """One format. ``bits`` is what a code or value takes, ``bits_per_weight`` includes the scales."""

    name: str
    bits: int
    is_low_bit: bool

    @property
    def bits_per_weight(self) -> float:
        """Effective bits per weight of a long row."""
        return bits_per_weight(self.name)


_BITS = {"q2": 2, "q3": 3, "q4": 4, "q6": 6, "q8": 8, "bf16": 16, "f16": 16, "f32": 32}
_TABLE = {name: FormatInfo(name, _BITS[name], name.startswith("q")) for name in FORMATS}


def format_info(name: str) -> FormatInfo:
    """The format of that name, for example ``"q4"``.

    Raises:
        RequestError: no such format.
    """
    try:
        return _TABLE[name]
    except KeyError:
        raise RequestError(f"unknown format {name!r}; choose one of {', '.join(_TABLE)}") from None


def format_at_least(bits_per_weight: float, dtype: str) -> str:
    """The smallest format that keeps the width of a stored tensor; ``dtype`` decides among floats.

    Block types of other engines count by their whole bits: 4.5 bits per weight with scales are 4 here.
    """
    if dtype.lower() in ("f32", "f16", "bf16"):
        return dtype.lower()
    fitting = (name for name in FORMATS if _BITS[name] >= int(bits_per_weight))
    return next(fitting)


def format_for_bits(bits: int | str) -> str:
    """The format people mean by ``4``, ``"4"``, ``"q4"`` or ``"bf16"``: here ``"q4"`` and ``"bf16"``.

    Raises:
        RequestError: no format has that width.
    """
    text = str(bits).strip().lower()
    name = f"q{text}" if text.isdigit() else text
    if name not in _TABLE:
        choices = ", ".join(name.removeprefix("q") for name in _TABLE)
        raise RequestError(f"no format has {bits!r} bits; choose one of {choices}")
    return name
