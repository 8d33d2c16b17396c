"""EdgeMoE: mixture-of-experts language models in less memory than their weights need."""

from __future__ import annotations

from edgemoe import _begin  # noqa: F401 - before all others, see there

# isort: split
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgemoe.api import (
        AnswerOptions,
        AsyncStream,
        Chunk,
        Generation,
        Model,
        Sampling,
        Score,
        Stream,
        TokenLogprob,
        load,
    )
    from edgemoe.errors import (
        BudgetError,
        CheckpointError,
        ContextError,
        ConversionError,
        CorruptStoreError,
        EdgeMoEError,
        ExpertReadError,
        MissingTensorError,
        NotAStoreError,
        NumericError,
        PlanError,
        RequestError,
        StoreError,
        StoreVersionError,
        TraceError,
        UnsupportedModelError,
        UnusedTensorError,
        UnwrittenPlanError,
        WorkerError,
    )
    from edgemoe.executors import ExecutorOptions
    from edgemoe.server import serve
    from edgemoe.workflows.convert import ConvertOptions, convert_model, estimate_store
    from edgemoe.workflows.doctor import budgets_of, examine_machine
    from edgemoe.workflows.evaluate import EvaluateOptions, evaluate_pairs, evaluate_text
    from edgemoe.workflows.export import ExportOptions, export_store
    from edgemoe.workflows.get import GetOptions, get_model, look_at_model
    from edgemoe.workflows.inspect import InspectOptions, inspect_store
    from edgemoe.workflows.plan import PlanOptions, plan_widths
    from edgemoe.workflows.profile import ProfileOptions, profile_model
    from edgemoe.workflows.simulate import SimulateOptions, Simulation
    from edgemoe.workflows.tracing import TraceOptions, fit_store, trace_store

__version__ = "0.1.0"
__all__ = [
    "AnswerOptions",
    "AsyncStream",
    "BudgetError",
    "CheckpointError",
    "Chunk",
    "ContextError",
    "ConversionError",
    "ConvertOptions",
    "CorruptStoreError",
    "EdgeMoEError",
    "EvaluateOptions",
    "ExecutorOptions",
    "ExpertReadError",
    "ExportOptions",
    "Generation",
    "GetOptions",
    "InspectOptions",
    "MissingTensorError",
    "Model",
    "NotAStoreError",
    "NumericError",
    "PlanError",
    "PlanOptions",
    "ProfileOptions",
    "RequestError",
    "Sampling",
    "Score",
    "SimulateOptions",
    "Simulation",
    "StoreError",
    "StoreVersionError",
    "Stream",
    "TokenLogprob",
    "TraceError",
    "TraceOptions",
    "UnsupportedModelError",
    "UnusedTensorError",
    "UnwrittenPlanError",
    "WorkerError",
    "__version__",
    "budgets_of",
    "convert_model",
    "estimate_store",
    "evaluate_pairs",
    "evaluate_text",
    "examine_machine",
    "export_store",
    "fit_store",
    "get_model",
    "inspect_store",
    "load",
    "look_at_model",
    "plan_widths",
    "profile_model",
    "serve",
    "trace_store",
]

# Where each name lives.
_NAMES = {
    "edgemoe.api": (
        "AnswerOptions",
        "AsyncStream",
        "Chunk",
        "Generation",
        "Model",
        "Sampling",
        "Score",
        "Stream",
        "TokenLogprob",
        "load",
    ),
    "edgemoe.errors": (
        "BudgetError",
        "CheckpointError",
        "ContextError",
        "ConversionError",
        "CorruptStoreError",
        "EdgeMoEError",
        "ExpertReadError",
        "MissingTensorError",
        "NotAStoreError",
        "NumericError",
        "PlanError",
        "RequestError",
        "StoreError",
        "StoreVersionError",
        "TraceError",
        "UnsupportedModelError",
        "UnusedTensorError",
        "UnwrittenPlanError",
        "WorkerError",
    ),
    "edgemoe.executors": ("ExecutorOptions",),
    "edgemoe.server": ("serve",),
    "edgemoe.workflows.convert": ("ConvertOptions", "convert_model", "estimate_store"),
    "edgemoe.workflows.doctor": ("budgets_of", "examine_machine"),
    "edgemoe.workflows.evaluate": ("EvaluateOptions", "evaluate_pairs", "evaluate_text"),
    "edgemoe.workflows.export": ("ExportOptions", "export_store"),
    "edgemoe.workflows.get": ("GetOptions", "get_model", "look_at_model"),
    "edgemoe.workflows.inspect": ("InspectOptions", "inspect_store"),
    "edgemoe.workflows.plan": ("PlanOptions", "plan_widths"),
    "edgemoe.workflows.profile": ("ProfileOptions", "profile_model"),
    "edgemoe.workflows.simulate": ("SimulateOptions", "Simulation"),
    "edgemoe.workflows.tracing": ("TraceOptions", "fit_store", "trace_store"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import the engine when it is first used: ``import edgemoe`` alone costs next to nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'edgemoe' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
