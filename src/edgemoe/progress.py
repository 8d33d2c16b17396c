"""Progress of long work: the functions that are told of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

# Told of work done: (done, total), both counted from the start of the work.
Progress = Callable[[int, int], None]
# Takes one line for people.
Tell = Callable[[str], None]


class ShowSteps(Protocol):
    """Shows work of several steps: gives each a function to tell of its progress."""

    def __call__(self, description: str, unit: str) -> AbstractContextManager[Progress]:
        """A context manager for one step, whose progress is counted in ``unit``."""
        ...


@contextmanager
def unseen(description: str, unit: str) -> Iterator[Progress]:
    """Steps that nobody wants to see."""
    yield lambda done, total: None


def unheard(line: str) -> None:
    """A line that nobody wants to read."""
