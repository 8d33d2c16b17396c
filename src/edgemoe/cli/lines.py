"""What a user types in a conversation: lines, texts of several lines, and the end."""

from __future__ import annotations

import sys

from edgemoe.cli.output import say

QUOTES = '"""'


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
    is_typed = sys.stdin.isatty()
    if is_typed and sys.stdout.isatty():
        try:
            return input(prompt)
        except EOFError:
            return None
    if is_typed:  # answers go elsewhere: the prompt must not go with them
        print(prompt, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    return line.rstrip("\r\n") if line else None


def _end() -> None:
    if sys.stdin.isatty():
        say("")
