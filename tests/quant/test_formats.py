from __future__ import annotations

import pytest

from edgemoe.errors import RequestError
from edgemoe.native import FORMATS
from edgemoe.quant import format_for_bits, format_info

# The limits that formats were designed to, scales included; q3 is 3.5 and 32 bits a row for its base.
_LARGEST_BITS = {"q2": 2.7, "q3": 3.52, "q4": 4.6, "q6": 6.6, "q8": 8.6}


@pytest.mark.parametrize(
    ("bits", "name"), [(4, "q4"), ("4", "q4"), ("q6", "q6"), ("BF16", "bf16"), ("f32", "f32")]
)
def test_format_for_bits(bits: int | str, name: str) -> None:
    assert format_for_bits(bits) == name


@pytest.mark.parametrize("bits", [5, "7", "16", "q16", ""])
def test_unknown_width_names_the_choices(bits: int | str) -> None:
    with pytest.raises(RequestError, match="2, 3, 4, 6, 8, bf16"):
        format_for_bits(bits)


def test_every_format_is_described() -> None:
    for name in FORMATS:
        info = format_info(name)
        assert info.bits <= info.bits_per_weight <= _LARGEST_BITS.get(name, info.bits)
