"""GGUF files as checkpoints: tensors, configuration and tokenizer under Hugging Face's names."""

from edgemoe.checkpoint.gguf.container import MAGIC
from edgemoe.checkpoint.gguf.source import GgufCheckpoint, names_of_parts

__all__ = ["MAGIC", "GgufCheckpoint", "names_of_parts"]
