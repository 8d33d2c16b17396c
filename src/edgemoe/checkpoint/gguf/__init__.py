"""GGUF files as checkpoints: tensors, configuration and tokenizer under Hugging Face's names."""

from edgemoe.checkpoint.gguf.container import MAGIC
from edgemoe.checkpoint.gguf.source import GgufCheckpoint

__all__ = ["MAGIC", "GgufCheckpoint"]
