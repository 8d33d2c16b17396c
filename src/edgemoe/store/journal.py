"""What of an unfinished store is safely on disk: a file of JSON lines, the first naming the conversion.

A line counts once its newline is there; what follows the first line that does not is cut off, because a
killed process or a power cut can tear the end of the file and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from edgemoe.json_object import parse_json_object
from edgemoe.system import sync_file

FILE = "journal.jsonl"


class Journal:
    """The checksums by tensor name that an earlier run left, and the file that takes more."""

    def __init__(self, path: Path, identity: str) -> None:
        """Open the journal of ``identity``; that of anything else is emptied.

        ``is_other`` says whether there was one of something else.
        """
        lines, num_bytes = _whole_lines(path)
        is_same = bool(lines) and lines[0].get("identity") == identity
        self.is_other = path.exists() and not is_same
        self.checksums: dict[str, str] = {}
        if is_same:
            self.checksums = {line["name"]: line["checksum"] for line in lines[1:]}
        self._file = path.open("ab")
        self._identity = identity
        if is_same:
            self._file.truncate(num_bytes)
        else:
            self.restart()

    def restart(self) -> None:
        """Forget every tensor."""
        self.checksums = {}
        self._file.truncate(0)
        self._file.write(json.dumps({"identity": self._identity}).encode() + b"\n")
        self._sync()

    def append(self, checksums: Mapping[str, str]) -> None:
        """Enter tensors whose data is on disk, and force the entries there."""
        for name, checksum in checksums.items():
            self._file.write(json.dumps({"name": name, "checksum": checksum}).encode() + b"\n")
        self._sync()

    def _sync(self) -> None:
        self._file.flush()
        sync_file(self._file.fileno())

    def close(self) -> None:
        """Close the file; it stays where it is."""
        self._file.close()


def _whole_lines(path: Path) -> tuple[list[dict[str, str]], int]:
    """The lines up to the first torn one, and how many bytes they take."""
    lines: list[dict[str, str]] = []
    num_bytes = 0
    if not path.exists():
        return lines, 0
    for text in path.read_bytes().splitlines(keepends=True):
        try:
            line = parse_json_object(text)
        except ValueError:
            break
        keys = {"name", "checksum"} if lines else {"identity"}
        is_whole = text.endswith(b"\n") and line.keys() == keys
        if not is_whole or not all(isinstance(value, str) for value in line.values()):
            break
        lines.append(line)
        num_bytes += len(text)
    return lines, num_bytes
