"""EdgeMoE: mixture-of-experts language models in less memory than their weights need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgemoe.api import Chunk, Generation, Model, Score, Stream, load
    from edgemoe.errors import EdgeMoEError

__version__ = "0.1.0"
__all__ = ["Chunk", "EdgeMoEError", "Generation", "Model", "Score", "Stream", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import the engine when it is first used: ``import edgemoe`` alone costs next to nothing."""
    if name == "EdgeMoEError":
        from edgemoe.errors import EdgeMoEError

        return EdgeMoEError
    if name in __all__:
        from edgemoe import api

        return getattr(api, name)
    raise AttributeError(f"module 'edgemoe' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
