"""A server on loopback that gives ranges of files, slowly or wrongly where a test says so."""

from __future__ import annotations

import itertools
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from helpers.loopback import LoopbackHandler, serving

PROMPT, NUM_TOKENS = "Once upon a time", 5
# Room for a few experts only: nearly every use is a read.
SMALL = {"cache": "1MiB", "context": 64, "num_threads": 1}


@dataclass
class Remote:
    """Folders by the first part of their address.

    ``log`` holds (file, first byte, last byte). ``fault(name, number)`` of the request so many, from 0, is a
    status, "cut" (half of the body), "reset", "damage" (a byte is wrong) or "stall" (until ``gate`` is set).
    """

    folders: dict[str, Path]
    latency_s: float = 0.0
    fault: Callable[[str, int], int | str | None] = lambda name, number: None
    log: list[tuple[str, int, int]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)  # etags, where they are not those of the files
    passwords: set[str] = field(default_factory=set)  # that clients have shown
    gate: threading.Event = field(default_factory=threading.Event)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def num_bytes_of(self, suffix: str) -> int:
        """Bytes sent of files whose name ends so."""
        return sum(last - first + 1 for name, first, last in self.log if name.endswith(suffix))

    def next_fault(self, name: str) -> int | str | None:
        """What goes wrong with the next request, which is for this file."""
        with self._lock:
            return self.fault(name, next(self._numbers))


class _Handler(LoopbackHandler):
    """Gives ranges of files, with the faults that the test asks for."""

    remote: Remote

    def do_GET(self) -> None:
        if self.headers.get("Authorization"):
            self.remote.passwords.add(self.headers["Authorization"])
        folder, _, name = self.path.lstrip("/").partition("/")
        path = self.remote.folders.get(folder, Path("/nowhere")) / name
        fault = self.remote.next_fault(name)
        time.sleep(self.remote.latency_s)
        if fault == "stall":
            self.remote.gate.wait()
            return
        if isinstance(fault, int) or not path.is_file():
            self._send(fault if isinstance(fault, int) else 404, b"")
            return
        self._give(path, name, str(fault))

    def _give(self, path: Path, name: str, fault: str) -> None:
        stat = path.stat()
        etag = self.remote.versions.get(name, f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"')
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = (int(asked[1]), int(asked[2] or stat.st_size)) if asked else (0, stat.st_size)
        last = min(last, stat.st_size - 1)
        if not asked and self.headers.get("If-None-Match") == etag:
            self._send(304, b"")
            return
        with path.open("rb") as file:
            file.seek(first)
            data = bytearray(file.read(last - first + 1))
        self.remote.log.append((name, first, last))
        if fault == "damage":
            data[len(data) // 2] ^= 1
        headers = {"ETag": etag}
        if asked:
            headers["Content-Range"] = f"bytes {first}-{last}/{stat.st_size}"
        self._send(206 if asked else 200, bytes(data), headers, fault)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, fault: str = "") -> None:
        if fault == "reset":  # a hard end instead of an answer
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
            return
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault == "cut":
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write(body)


@contextmanager
def serve(remote: Remote) -> Iterator[str]:
    """The server's address."""
    with serving(type("Handler", (_Handler,), {"remote": remote})) as url:
        try:
            yield url
        finally:
            remote.gate.set()
