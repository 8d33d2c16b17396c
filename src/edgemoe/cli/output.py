"""How results and progress look: JSON and text on stdout, tables for people, progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID
    from rich.table import Table

    from edgemoe.api import Model


class Advance(Protocol):
    """Told of work done: ``(done, total)``, both counted from the start of the work."""

    def __call__(self, done: int, total: int) -> None:
        """Show it."""


def print_json(record: Mapping[str, Any]) -> None:
    """The one JSON object that ``--json`` promises."""
    print(json.dumps(record, ensure_ascii=False), flush=True)


def say(message: str) -> None:
    """One line about the work, on stderr."""
    print(message, file=sys.stderr, flush=True)


def say_budget(model: Model) -> None:
    """Where a budget that nobody asked for comes from, on stderr."""
    say(f"memory budget {model.memory.explanation}; --memory sets another")


def stderr_console() -> Console:
    """Console for progress; without a terminal rich leaves out colours and redrawing."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_table(table: Table) -> None:
    """A table on stdout, never wider than the terminal, whole words when there is none."""
    from rich.console import Console

    Console(highlight=False, width=None if sys.stdout.isatty() else 120).print(table)


def new_table(title: str, *headers: str, is_narrow: bool = False) -> Table:
    """A plain table: names to the left, numbers to the right; a narrow one fits many columns into 80."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=not is_narrow,
        padding=(0, 0) if is_narrow else (0, 1),
    )
    for position, header in enumerate(headers):
        table.add_column(header, justify="left" if position == 0 else "right", no_wrap=is_narrow)
    return table


@contextmanager
def byte_progress(description: str) -> Iterator[Advance]:
    """A bar of bytes with speed and time left. Yields the function to tell of progress."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
    )
    yield from _shown(Progress(*columns, console=stderr_console()), description)


@contextmanager
def count_progress(description: str, unit: str) -> Iterator[Advance]:
    """A bar of things counted with the time left. Yields the function to tell of progress."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(compact=True),
    )
    yield from _shown(Progress(*columns, console=stderr_console()), description)


def _shown(progress: Progress, description: str) -> Iterator[Advance]:
    """The bar appears with the first progress, so that a request refused before it prints one line."""
    tasks: list[TaskID] = []

    def advance(done: int, total: int) -> None:
        if not tasks:  # begun here, what an earlier run had done does not count as speed
            progress.start()
            tasks.append(progress.add_task(description, completed=done, total=total))
        progress.update(tasks[0], completed=done, total=total)

    try:
        yield advance
    finally:
        if tasks:
            progress.stop()
