"""The storage formats of a weight matrix, as people choose them: by their number of bits.

Their facts are in ``native/kernels/formats.h``, the bytes themselves in ``native/kernels/layout.h``.
"""

from __future__ import annotations

from edgemoe.errors import RequestError
from edgemoe.native import FORMAT_TRAITS, FormatTraits


def format_info(name: str) -> FormatTraits:
    """The format of that name, for example ``"q4"``.

    Raises:
        RequestError: no such format.
    """
    try:
        return FORMAT_TRAITS[name]
    except KeyError:
        raise RequestError(f"unknown format {name!r}; choose one of {', '.join(FORMAT_TRAITS)}") from None


def format_at_least(bits_per_weight: float, dtype: str) -> str:
    """The smallest format that keeps the width of a stored tensor; ``dtype`` decides among floats.

    Block types of other engines count by their whole bits: 4.5 bits per weight with scales are 4 here.
    """
    if dtype.lower() in ("f32", "f16", "bf16"):
        return dtype.lower()
    rounded = (t for t in FORMAT_TRAITS.values() if t.is_rounded)
    return next(t.name for t in rounded if t.bits >= int(bits_per_weight))


def exact_format(block_type: str) -> str | None:
    """The format that holds a GGUF block type value for value, ``"q4_k"`` for ``"Q4_K"``, or None."""
    return next((t.name for t in FORMAT_TRAITS.values() if t.block_type == block_type), None)


def format_for_bits(bits: int | str) -> str:
    """The format people mean by ``4``, ``"4"``, ``"q4"`` or ``"bf16"``: here ``"q4"`` and ``"bf16"``.

    Raises:
        RequestError: no format has that width.
    """
    text = str(bits).strip().lower()
    name = f"q{text}" if text.isdigit() else text
    if name not in FORMAT_TRAITS or not FORMAT_TRAITS[name].is_rounded:
        choices = ", ".join(t.name.removeprefix("q") for t in FORMAT_TRAITS.values() if t.is_rounded)
        raise RequestError(f"no format has {bits!r} bits; choose one of {choices}")
    return name
