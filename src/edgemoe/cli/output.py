"""How results and progress look: JSON and text on stdout, tables for people, progress on stderr."""

from __future__ import annotations

import json
import math
import re
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from edgemoe.errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID
    from rich.table import Table


# What lasts longer is shown to go on.
PATIENCE_S = 1.0
# Wider than any table.
_WIDEST = 10_000
# Names of files are no markup and no code of a picture, whatever brackets and colons are in them.
_AS_IT_IS: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}


class Advance(Protocol):
    """Told of work done: ``(done, total)``, both counted from the start of the work."""

    def __call__(self, done: int, total: int) -> None:
        """Show it."""


def print_json(record: Mapping[str, Any]) -> None:
    """The one JSON object that ``--json`` promises; numbers that JSON does not have are null."""
    print(json.dumps(_plain(record), ensure_ascii=False, allow_nan=False), flush=True)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def say(message: str) -> None:
    """Lines about the work, on stderr; where they cannot be written, the work goes on all the same.

    They name what strangers have named: a terminal obeys none of it.
    """
    with suppress(OSError):
        print("\n".join(map(printable, message.split("\n"))), file=sys.stderr, flush=True)


def quoted(*words: object) -> str:
    """Words as a shell takes them: one line that can be pasted, whatever the names of files hold."""
    return " ".join(
        _quoted(f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word))
        for word in words
    )


def _quoted(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    # What a terminal cannot show or would obey, byte by byte, in a way that bash, zsh and ksh read.
    characters = (c if c.isprintable() else _escaped(c) for c in re.sub(r"([\\'])", r"\\\1", word))
    return f"$'{''.join(characters)}'"


def _escaped(character: str) -> str:
    # Three octal digits, as what follows may be a digit.
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))


def shown_store(path: Path) -> Path | str:
    """A store as a line shows it: a URL as it was written, without its password."""
    if ":" not in str(path):
        return path
    from edgemoe.store import shown_name

    return shown_name(path)


@contextmanager
def reading_prompt() -> Iterator[Advance]:
    """A bar of the prompt's tokens until all are read, if that lasts. Yields the function to tell."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("reading the prompt"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=stderr_console(), transient=True)
    tasks: list[TaskID] = []
    began_s = time.monotonic()

    def advance(done: int, total: int) -> None:
        if not tasks and done < total and time.monotonic() - began_s > PATIENCE_S:
            _start(progress)
            tasks.append(progress.add_task("", total=total))
        if tasks:
            progress.update(tasks[0], completed=done)
            if done >= total:
                progress.stop()

    try:
        yield advance
    finally:
        if tasks:
            progress.stop()


@contextmanager
def waiting(description: str) -> Iterator[None]:
    """Show on stderr that something is going on if it lasts, and for how long."""
    console = stderr_console()
    with _after_a_while(lambda: console.status(description) if console.is_terminal else _said(description)):
        yield


@contextmanager
def _said(description: str) -> Iterator[None]:
    say(f"{description} ...")
    yield


@contextmanager
def _after_a_while(make: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
    """Enter what ``make`` gives if the body takes longer than a second; leave it at the end."""
    lock, shown = threading.Lock(), ExitStack()
    is_over = False

    def show() -> None:
        with lock:
            if not is_over:
                shown.enter_context(make())

    timer = threading.Timer(PATIENCE_S, show)
    timer.daemon = True
    with suppress(RuntimeError):  # no more threads are allowed: then nothing is shown
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with lock:
            is_over = True
            shown.close()


def is_terminal(stream: TextIO) -> bool:
    """Whether a person is at its other end; a stream that a program has put in its place need not say."""
    asks = getattr(stream, "isatty", None)
    return asks is not None and bool(asks())


def stderr_console() -> Console:
    """Console for progress; without a terminal rich leaves out colours and redrawing."""
    from rich.console import Console

    return Console(stderr=True, **_AS_IT_IS)


def print_table(table: Table) -> None:
    """A table on stdout, as wide as the terminal; wider where words and numbers would be cut."""
    from rich.console import Console

    console = Console(**_AS_IT_IS, width=None if is_terminal(sys.stdout) else 120)
    needed = console.measure(table, options=console.options.update(max_width=_WIDEST))
    wraps = not any(column.no_wrap for column in table.columns)
    console.width = max(console.width, needed.minimum if wraps else needed.maximum)
    console.print(table)


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
        table.add_column(
            header, justify="left" if position == 0 else "right", no_wrap=is_narrow, overflow="fold"
        )
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
        TextColumn("{task.description}", markup=False),
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
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(compact=True),
    )
    yield from _shown(Progress(*columns, console=stderr_console()), description)


def show_steps(description: str, unit: str) -> AbstractContextManager[Advance]:
    """How the work of a workflow is shown: a bar for each step."""
    return byte_progress(description) if unit == "bytes" else count_progress(description, unit)


def _start(progress: Progress) -> None:
    """Show a bar; where no more threads are allowed there is none that redraws it, and none is shown."""
    try:
        progress.start()
    except RuntimeError:
        progress.disable = True


def _shown(progress: Progress, description: str) -> Iterator[Advance]:
    """The bar appears with the first progress, so that a request refused before it prints one line."""
    tasks: list[TaskID] = []

    def advance(done: int, total: int) -> None:
        if not tasks:  # begun here, what an earlier run had done does not count as speed
            _start(progress)
            tasks.append(progress.add_task(printable(description), completed=done, total=total))
        progress.update(tasks[0], completed=done, total=total)

    try:
        yield advance
    finally:
        if tasks:
            progress.stop()
