"""EdgeMoE: mixture-of-experts language models in less memory than their weights need."""

from __future__ import annotations

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
    )
    from edgemoe.server import serve

__version__ = "0.1.0"
_OF_API = (
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
)
__all__ = [
    "AnswerOptions",
    "AsyncStream",
    "BudgetError",
    "CheckpointError",
    "Chunk",
    "ContextError",
    "ConversionError",
    "CorruptStoreError",
    "EdgeMoEError",
    "ExpertReadError",
    "Generation",
    "MissingTensorError",
    "Model",
    "NotAStoreError",
    "NumericError",
    "PlanError",
    "RequestError",
    "Sampling",
    "Score",
    "StoreError",
    "StoreVersionError",
    "Stream",
    "TokenLogprob",
    "TraceError",
    "UnsupportedModelError",
    "UnusedTensorError",
    "__version__",
    "load",
    "serve",
]


def __getattr__(name: str) -> Any:
    """Import the engine when it is first used: ``import edgemoe`` alone costs next to nothing."""
    if name in _OF_API:
        from edgemoe import api

        return getattr(api, name)
    if name == "serve":
        from edgemoe.server import serve

        return serve
    if name in __all__:
        from edgemoe import errors

        return getattr(errors, name)
    raise AttributeError(f"module 'edgemoe' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
