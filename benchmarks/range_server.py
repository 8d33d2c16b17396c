"""Gives ranges of a folder's files after a wait, as an object store does that is far; a program of its own.

    python benchmarks/range_server.py FOLDER --latency-ms 30 [--mbit 1000]

Prints its address and serves until its input ends. ``start_server`` does that for a benchmark.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextmanager
def start_server(folder: Path, latency_ms: float, mbit: float | None) -> Iterator[str]:
    """The address of the folder, from another process: it must not take the interpreter's turns."""
    command = [sys.executable, __file__, str(folder), "--latency-ms", str(latency_ms)]
    command += [] if mbit is None else ["--mbit", str(mbit)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


class Link:
    """A line that all requests share, after a wait of their own."""

    def __init__(self, latency_s: float, bytes_per_s: float | None) -> None:
        self._latency_s, self._bytes_per_s = latency_s, bytes_per_s
        self._lock = threading.Lock()
        self._free_s = 0.0

    def pass_through(self, num_bytes: int) -> None:
        """Return when so many bytes would have come through."""
        time.sleep(self._latency_s)
        if self._bytes_per_s is None:
            return
        with self._lock:
            self._free_s = max(self._free_s, time.monotonic()) + num_bytes / self._bytes_per_s
            ends_s = self._free_s
        time.sleep(max(0.0, ends_s - time.monotonic()))


def serve(folder: Path, link: Link) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            path = folder / Path(self.path).name
            size = path.stat().st_size if path.is_file() else 0
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            first, stop = (int(asked[1]), min(int(asked[2]) + 1, size)) if asked else (0, size)
            link.pass_through(stop - first)
            self.send_response((206 if asked else 200) if size else 404)
            self.send_header("Content-Length", str(stop - first))
            self.send_header("ETag", f'"{size}"')
            if asked:
                self.send_header("Content-Range", f"bytes {first}-{stop - 1}/{size}")
            self.end_headers()
            if size:
                with path.open("rb") as file:
                    while first < stop:
                        first += os.sendfile(self.connection.fileno(), file.fileno(), first, stop - first)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Clients may hang up."""

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_address[1]}/{folder.name}", flush=True)
    sys.stdin.read()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency-ms", type=float, default=30)
    parser.add_argument("--mbit", type=float, help="of the line that all requests share; default: no bound")
    args = parser.parse_args()
    serve(args.folder, Link(args.latency_ms / 1e3, None if args.mbit is None else args.mbit * 1e6 / 8))


if __name__ == "__main__":
    main()
