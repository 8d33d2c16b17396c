"""Checkpoint + plan → store. Reads, packs and writes a few rows at a time; resumes where it was stopped.

Peak memory is one packed expert plus one chunk of rows, however large the model is.
"""

from edgemoe.convert.experts_only import ExpertTensors
from edgemoe.convert.in_place import open_gguf, open_runnable
from edgemoe.convert.parts import convert_in_parts
from edgemoe.convert.preview import StoreEstimate, estimate, plan_as_stored
from edgemoe.convert.run import ConversionReport, convert, convert_experts
from edgemoe.progress import Progress

__all__ = [
    "ConversionReport",
    "ExpertTensors",
    "Progress",
    "StoreEstimate",
    "convert",
    "convert_experts",
    "convert_in_parts",
    "estimate",
    "open_gguf",
    "open_runnable",
    "plan_as_stored",
]
