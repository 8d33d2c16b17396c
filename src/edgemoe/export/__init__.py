"""Store → elsewhere: llama.cpp and its tools, transformers and vLLM, the Hub."""

from edgemoe.export.compressed import CheckpointReport, export_checkpoint
from edgemoe.export.hub import model_card, push_store
from edgemoe.export.quantiser import Recipe, make_recipe, write_imatrix, write_recipe
from edgemoe.export.run import ExportReport, export_gguf

__all__ = [
    "CheckpointReport",
    "ExportReport",
    "Recipe",
    "export_checkpoint",
    "export_gguf",
    "make_recipe",
    "model_card",
    "push_store",
    "write_imatrix",
    "write_recipe",
]
