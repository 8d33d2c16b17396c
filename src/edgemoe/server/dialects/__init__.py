"""How families of models write thoughts and calls of functions, read while the text arrives."""

from edgemoe.server.dialects.dialect import DIALECTS, VERBATIM, Dialect, Reader, find_dialect
from edgemoe.server.dialects.forms import (
    Form,
    JsonForm,
    ListForm,
    Opening,
    PythonForm,
    QuotedForm,
    TaggedForm,
)
from edgemoe.server.dialects.reader import AnswerReader, Call

__all__ = [
    "DIALECTS",
    "VERBATIM",
    "AnswerReader",
    "Call",
    "Dialect",
    "Form",
    "JsonForm",
    "ListForm",
    "Opening",
    "PythonForm",
    "QuotedForm",
    "Reader",
    "TaggedForm",
    "find_dialect",
]
