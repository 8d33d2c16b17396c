"""Store → other programs' files: a GGUF file that llama.cpp runs, and what makes one with its own tools."""

from edgemoe.export.quantiser import Recipe, make_recipe, write_imatrix, write_recipe
from edgemoe.export.run import ExportReport, export_gguf

__all__ = ["ExportReport", "Recipe", "export_gguf", "make_recipe", "write_imatrix", "write_recipe"]
