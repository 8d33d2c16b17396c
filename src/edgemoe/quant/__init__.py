"""Numbers and bits: which formats there are, which expert is stored in which, and how it is rounded."""

from edgemoe.quant.formats import exact_format, format_at_least, format_for_bits, format_info
from edgemoe.quant.gram import ExpertInputs, expert_grams, quantize_for, refines
from edgemoe.quant.plan import BitPlan, ExpertFormats, read_plan

__all__ = [
    "BitPlan",
    "ExpertFormats",
    "ExpertInputs",
    "exact_format",
    "expert_grams",
    "format_at_least",
    "format_for_bits",
    "format_info",
    "quantize_for",
    "read_plan",
    "refines",
]
