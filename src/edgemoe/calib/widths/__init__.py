"""Bit widths for every expert, by measurement: a profile of the experts, and plans over it."""

from edgemoe.calib.widths.calibration import ProfileOptions
from edgemoe.calib.widths.choose import (
    CalibrationOptions,
    ChosenWidths,
    choose_widths,
    make_profile,
    open_profile,
)
from edgemoe.calib.widths.inputs import TraceInputs, read_inputs
from edgemoe.calib.widths.ladder import WIDTHS, Ladder
from edgemoe.calib.widths.planning import Choice, by_rank, knapsack, smallest_within
from edgemoe.calib.widths.profile import Profile
from edgemoe.calib.widths.quality import Quality, compare
from edgemoe.calib.widths.search import Goal

__all__ = [
    "WIDTHS",
    "CalibrationOptions",
    "Choice",
    "ChosenWidths",
    "Goal",
    "Ladder",
    "Profile",
    "ProfileOptions",
    "Quality",
    "TraceInputs",
    "by_rank",
    "choose_widths",
    "compare",
    "knapsack",
    "make_profile",
    "open_profile",
    "read_inputs",
    "smallest_within",
]
