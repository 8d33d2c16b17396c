from __future__ import annotations

import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from edgemoe.errors import RequestError
from edgemoe.native import FORMAT_TRAITS, bits_per_weight
from edgemoe.quant import format_for_bits, format_info

# The limits that formats were designed to, scales included; q3 is 3.5 and 32 bits a row for its base.
_LARGEST_BITS = {"q2": 2.7, "q3": 3.52, "q4": 4.6, "q6": 6.6, "q8": 8.6, "t2": 2.15, "t3": 3.15}


@pytest.mark.parametrize(
    ("bits", "name"), [(4, "q4"), ("4", "q4"), ("q6", "q6"), ("BF16", "bf16"), ("f32", "f32")]
)
def test_format_for_bits(bits: int | str, name: str) -> None:
    assert format_for_bits(bits) == name


@pytest.mark.parametrize("bits", [5, "7", "16", "q16", "q4_k", ""])
def test_unknown_width_names_the_choices(bits: int | str) -> None:
    with pytest.raises(RequestError, match="2, 3, 4, 6, 8, bf16"):
        format_for_bits(bits)


def test_every_format_is_described() -> None:
    for name, traits in FORMAT_TRAITS.items():
        assert format_info(name) is traits
        if traits.is_rounded:
            assert traits.bits <= bits_per_weight(name) <= _LARGEST_BITS.get(name, traits.bits)


def test_no_exact_format_takes_more_than_its_blocks_elsewhere() -> None:
    """But for a few, which take a little more for the sake of speed (docs/quantization.md)."""
    more = {"iq4_xs": 1 / 16, "nvfp4": 1 / 128, "tq1_0": 3 / 8, "iq1_s": 1 / 8, "iq1_m": 1 / 16}
    more |= dict.fromkeys(("iq2_xxs", "iq2_xs", "iq3_xxs"), 1 / 8)
    for traits in FORMAT_TRAITS.values():
        if traits.packs_blocks:
            block_cols, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[traits.block_type]]
            assert block_cols == traits.block_cols
            expected = 8 * block_bytes / block_cols + more.get(traits.name, 0)
            assert bits_per_weight(traits.name) == expected
