"""Every error a user can meet, drawn as a tree. A message says what happened, to what, and what to do.

EdgeMoEError
├── CheckpointError (ValueError)      somebody else's model folder is damaged or incomplete
│   ├── MissingTensorError            a tensor the family needs is not there
│   ├── UnusedTensorError             a tensor nobody consumed: it would be dropped silently
│   └── UnsupportedModelError         architecture, configuration key or value we do not run
├── StoreError (ValueError)           our own folder
│   ├── NotAStoreError                no manifest where a store was expected
│   ├── StoreVersionError             written by another version of the format
│   └── CorruptStoreError             bytes differ from what was written
├── TraceError (ValueError)           a folder of traces that is damaged or none
├── PlanError (ValueError)            no bit widths reach the tolerance or the size asked for
│   └── UnwrittenPlanError            they were found, and the file cannot be written
├── ConversionError (OSError)         converting could not go on: disk full, output exists
├── BudgetError (ValueError)          names the smallest budget that works
├── ExpertReadError (OSError)         storage failed while an expert was read
├── NumericError (ArithmeticError)    numbers overflowed while the model ran
├── WorkerError (RuntimeError)        work on several processes or machines could not be done
└── RequestError (ValueError)         bad prompt, option or context length
"""

from __future__ import annotations

from typing import Any

_MAX_CHARACTERS = 2000  # of a message: a name in a file can have any length


def printable(text: str) -> str:
    """The text on one line, with what a terminal would obey or cannot show written as an escape."""
    if text.isprintable():
        return text
    line = " ".join(text.splitlines())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


class EdgeMoEError(Exception):
    """Base of every error this package raises on purpose; its text is one printable line for the user.

    Messages quote names from strangers' files, which may hold control sequences of terminals: see
    :func:`printable`.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message[:_MAX_CHARACTERS]))

    def __reduce__(self) -> tuple[Any, ...]:
        """For errors that cross processes: some are made of more than their text."""
        return _again, (type(self), self.args, dict(self.__dict__))


def _again(kind: type[EdgeMoEError], args: tuple[Any, ...], fields: dict[str, Any]) -> EdgeMoEError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(fields)
    return error


class CheckpointError(EdgeMoEError, ValueError):
    """A checkpoint is damaged or incomplete."""


class MissingTensorError(CheckpointError):
    """A tensor that the model family needs is not in the checkpoint."""


class UnusedTensorError(CheckpointError):
    """The checkpoint holds tensors that the model family does not consume."""


class UnsupportedModelError(CheckpointError):
    """An architecture, configuration key or value that this version does not run."""


class StoreError(EdgeMoEError, ValueError):
    """A store cannot be used."""


class NotAStoreError(StoreError):
    """The folder holds no store manifest."""


class StoreVersionError(StoreError):
    """The store was written by an incompatible version of the format."""


class CorruptStoreError(StoreError):
    """Bytes of the store differ from what was written."""


class TraceError(EdgeMoEError, ValueError):
    """A trace cannot be used."""


class PlanError(EdgeMoEError, ValueError):
    """No plan of bit widths does what was asked; the message says what can be reached."""


class UnwrittenPlanError(PlanError):
    """A plan was found and its file cannot be written: ``plan`` is its text, so that hours are not lost."""

    def __init__(self, message: str, plan: str) -> None:
        super().__init__(message)
        self.plan = plan


class ConversionError(EdgeMoEError, OSError):
    """A conversion cannot start or continue."""


class BudgetError(EdgeMoEError, ValueError):
    """The memory budget cannot work; the message names the smallest one that can."""

    def __init__(self, message: str, *, smallest_num_bytes: int) -> None:
        super().__init__(message)
        self.smallest_num_bytes = smallest_num_bytes


class ExpertReadError(EdgeMoEError, OSError):
    """Storage failed while an expert was read."""


class NumericError(EdgeMoEError, ArithmeticError):
    """Numbers became infinite, or none at all, while the model ran: there is no answer to give."""


class WorkerError(EdgeMoEError, RuntimeError):
    """A worker, here or on another machine, could not do its work."""


class RequestError(EdgeMoEError, ValueError):
    """A request is malformed or asks for more than the model was loaded for."""


class ContextError(RequestError):
    """A text does not fit the context."""
