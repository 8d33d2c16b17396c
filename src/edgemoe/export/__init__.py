"""Store → elsewhere: a GGUF file that llama.cpp runs, what its own tools need to make one, the Hub."""

from edgemoe.export.hub import model_card, push_store
from edgemoe.export.quantiser import Recipe, make_recipe, write_imatrix, write_recipe
from edgemoe.export.run import ExportReport, export_gguf

__all__ = [
    "ExportReport",
    "Recipe",
    "export_gguf",
    "make_recipe",
    "model_card",
    "push_store",
    "write_imatrix",
    "write_recipe",
]
