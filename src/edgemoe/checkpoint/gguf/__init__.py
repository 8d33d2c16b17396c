"""GGUF files as checkpoints: tensors, configuration and tokenizer under Hugging Face's names."""

from edgemoe.checkpoint.gguf.source import GgufCheckpoint

__all__ = ["GgufCheckpoint"]
