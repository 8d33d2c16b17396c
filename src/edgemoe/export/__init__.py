"""Store → other programs' files: a GGUF file that llama.cpp runs, and what makes one with its own tools."""

from edgemoe.export.run import ExportReport, export_gguf

__all__ = ["ExportReport", "export_gguf"]
