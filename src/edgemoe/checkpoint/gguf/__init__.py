"""GGUF files as checkpoints: tensors, configuration and tokenizer under Hugging Face's names."""

from edgemoe.checkpoint.gguf.container import MAGIC, GgufTensor, read_header
from edgemoe.checkpoint.gguf.names import is_model_name, model_name, names_of_parts
from edgemoe.checkpoint.gguf.source import GgufCheckpoint

__all__ = [
    "MAGIC",
    "GgufCheckpoint",
    "GgufTensor",
    "is_model_name",
    "model_name",
    "names_of_parts",
    "read_header",
]
