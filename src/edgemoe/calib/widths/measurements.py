"""Measured numbers by name, safe on disk one by one, so that a killed measurement goes on where it was.

A file of JSON lines, the first naming what is measured; what follows a torn line is measured again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from edgemoe.json_object import parse_json_object
from edgemoe.system import sync_file


class Measurements:
    """The numbers of one file; a context manager."""

    def __init__(self, path: Path, identity: str) -> None:
        """Open the numbers of ``identity``; those of anything else are forgotten."""
        self.identity = identity
        self.values: dict[str, float] = {}
        head = json.dumps({"identity": identity}).encode() + b"\n"
        num_bytes = 0
        lines = _lines(path)
        if lines[:1] == [head]:
            self.values, num_bytes = _whole_rows(lines)
        self._file = path.open("ab")
        self._file.truncate(num_bytes)
        if not num_bytes:
            self._write(head)

    def __enter__(self) -> Measurements:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, values: Mapping[str, float]) -> None:
        """Enter numbers, together or not at all, and force them to disk."""
        self.values.update(values)
        self._write(json.dumps(dict(values)).encode() + b"\n")

    def _write(self, line: bytes) -> None:
        self._file.write(line)
        self._file.flush()
        sync_file(self._file.fileno())


def read_values(path: Path) -> dict[str, float]:
    """The numbers of a file, whatever was measured; none where there is no file."""
    return _whole_rows(_lines(path))[0]


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True) if path.exists() else []


def _whole_rows(lines: list[bytes]) -> tuple[dict[str, float], int]:
    """All numbers up to the first torn line after the head, and the bytes up to there."""
    values: dict[str, float] = {}
    num_bytes = sum(map(len, lines[:1]))
    for line in lines[1:]:
        row = _whole(line)
        if row is None:
            break
        values.update(row)
        num_bytes += len(line)
    return values, num_bytes


def _whole(line: bytes) -> dict[str, float] | None:
    try:
        row = parse_json_object(line)
    except ValueError:
        return None
    is_row = all(isinstance(value, float) and math.isfinite(value) for value in row.values())
    return row if is_row and line.endswith(b"\n") else None
