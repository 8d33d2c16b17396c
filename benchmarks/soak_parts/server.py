"""A server in a process of its own, on storage that may stand still.

python benchmarks/soak_parts/server.py STORE MEMORY [stalls]
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

STALL_S, STALL_EVERY, MOST_STALLS = 3.0, 100, 10  # storage stands still for so long after so many reads
ENV = os.environ | {"PYTHONUNBUFFERED": "1"}


@contextmanager
def served(store: Path, memory: str, group=None, stalls: bool = False):
    """A server's URL and process."""
    command = [sys.executable, __file__, str(store), memory, *(["stalls"] if stalls else [])]
    log = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed below
    process = subprocess.Popen(
        group.inside(command) if group else command, stdout=subprocess.PIPE, stderr=log, text=True, env=ENV
    )
    try:
        line = process.stdout.readline()
        if not line:
            log.seek(0)
            raise RuntimeError(f"no server: {log.read()[-2000:]}")
        yield line.strip(), process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        log.close()


def serve(store: Path, memory: str, stalls: bool) -> None:
    """The child: a server that says where it is, on storage that may stand still."""
    from edgemoe.server import Limits, ServerOptions
    from edgemoe.server import serve as run
    from edgemoe.store.store import Store

    if stalls:
        opened = Store.open_expert_reader
        Store.open_expert_reader = lambda *args, **options: StallingReader(opened(*args, **options))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    print(f"http://127.0.0.1:{port}", flush=True)
    options = ServerOptions(port=port, heartbeat_s=1.0, limits=Limits(num_waiting=64, send_s=5.0))
    run(store, memory, aliases=("model",), options=options)


class StallingReader:
    """A reader that stands still now and then; see ``ExpertReader``."""

    def __init__(self, reader) -> None:
        self._reader = reader
        self._num_waits = 0

    def _stall(self) -> None:
        self._num_waits += 1
        if self._num_waits % STALL_EVERY == 0 and self._num_waits <= MOST_STALLS * STALL_EVERY:
            time.sleep(STALL_S)

    def wait(self, ticket: int) -> None:
        """See ExpertReader."""
        self._stall()
        self._reader.wait(ticket)

    def wait_some(self, tickets, block: bool = True):
        """See ExpertReader."""
        if block:
            self._stall()
        return self._reader.wait_some(tickets, block)

    def __getattr__(self, name: str):
        return getattr(self._reader, name)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2], stalls="stalls" in sys.argv[3:])
