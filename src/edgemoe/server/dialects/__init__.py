"""How families of models write thoughts and calls of functions, read while the text arrives."""

from edgemoe.server.dialects.dialect import VERBATIM, Dialect, find_dialect
from edgemoe.server.dialects.reader import AnswerReader

__all__ = ["VERBATIM", "AnswerReader", "Dialect", "find_dialect"]
