"""What a user types in a conversation: lines, texts of several lines, and the end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from edgemoe.cli.output import is_terminal, say

QUOTES = '"""'
WAKE_S = 0.25  # soon enough for Ctrl-C, seldom enough not to cut the bytes of an arrow key apart


def read_message() -> str | None:
    """The next line, or the text of several; None at the end (Ctrl-D). Ctrl-C drops what was typed."""
    while True:
        try:
            line = _read_line("> ")
            if line is None:
                _end()
                return None
            if line.strip() == QUOTES:
                return _until_quotes([])
            if line.startswith(QUOTES):
                first = line[len(QUOTES) :]
                if first.endswith(QUOTES):
                    return first.removesuffix(QUOTES)
                return _until_quotes([first])
            return _joined(line).strip()
        except KeyboardInterrupt:
            say("\n(Ctrl-D ends)")


def _joined(line: str) -> str:
    """A line and those that follow a backslash at its end."""
    lines = [line]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        more = _read_line("… ")
        if more is None:
            break
        lines.append(more)
    return "\n".join(lines)


def _until_quotes(lines: list[str]) -> str:
    while (line := _read_line("… ")) is not None:
        if line.rstrip().endswith(QUOTES):
            last = line.rstrip().removesuffix(QUOTES)
            return "\n".join([*lines, last] if last else lines)
        lines.append(line)
    return "\n".join(lines)


def _read_line(prompt: str) -> str | None:
    """A line without its end; None at the end of all."""
    if not is_terminal(sys.stdin):
        return _stripped(sys.stdin.readline())
    with _waking():
        if is_terminal(sys.stdout):
            try:
                return input(prompt)
            except EOFError:
                return None
        # Answers go elsewhere: the prompt must not go with them.
        print(prompt, end="", file=sys.stderr, flush=True)
        return _stripped(sys.stdin.readline())


def _stripped(line: str) -> str | None:
    return line.rstrip("\r\n") if line else None


@contextmanager
def _waking() -> Iterator[None]:
    """Wakes a wait for a line now and then, so that no Ctrl-C is lost.

    Waits look for signals only when one interrupts them. One that comes between the prompt and the wait would
    be noticed with the next key that is typed, or with a signal: this sends one that means nothing.
    """
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, WAKE_S, WAKE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _end() -> None:
    if is_terminal(sys.stdin):
        say("")
