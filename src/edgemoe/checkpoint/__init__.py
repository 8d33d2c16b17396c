"""Other people's model files."""

from __future__ import annotations

from pathlib import Path

from edgemoe.checkpoint.memory import MemoryCheckpoint
from edgemoe.checkpoint.safetensors import SafetensorsCheckpoint
from edgemoe.checkpoint.source import CheckpointSource, SourceRef, TensorInfo
from edgemoe.errors import CheckpointError

__all__ = [
    "CheckpointSource",
    "MemoryCheckpoint",
    "SafetensorsCheckpoint",
    "SourceRef",
    "TensorInfo",
    "open_checkpoint",
]


def open_checkpoint(path: str | Path) -> CheckpointSource:
    """Open a Hugging Face checkpoint folder.

    Raises:
        CheckpointError: the folder is missing, incomplete or damaged.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; give a Hugging Face checkpoint folder")
    return SafetensorsCheckpoint(folder)
