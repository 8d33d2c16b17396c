"""Numbers and bits: which formats there are, and which expert is stored in which."""

from edgemoe.quant.formats import FormatInfo, format_at_least, format_for_bits, format_info
from edgemoe.quant.plan import BitPlan, ExpertFormats, read_plan

__all__ = [
    "BitPlan",
    "ExpertFormats",
    "FormatInfo",
    "format_at_least",
    "format_for_bits",
    "format_info",
    "read_plan",
]
