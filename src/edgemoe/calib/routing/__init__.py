"""What traces teach: tables and gates that forecast experts, and what policies and predictors would do."""

from edgemoe.calib.routing.fitting import FitReport, fit_num_bytes, fit_routing
from edgemoe.calib.routing.recall import Recall, measure_recall
from edgemoe.calib.routing.simulation import BELADY, Setting, SimulatedRun, simulate

__all__ = [
    "BELADY",
    "FitReport",
    "Recall",
    "Setting",
    "SimulatedRun",
    "fit_num_bytes",
    "fit_routing",
    "measure_recall",
    "simulate",
]
