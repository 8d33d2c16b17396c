"""A real server on loopback, in a thread of the test's process."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import uvicorn

from edgemoe.engine.machine import resident_bytes
from edgemoe.server.running import create_app
from edgemoe.units import MIB

DEMO_STORE = Path(str(files("edgemoe").joinpath("demo_store")))
EXTRA_BYTES = 600 * MIB  # beyond what the tests before have left in the process


@dataclass(frozen=True)
class LiveServer:
    """An address, and the application behind it."""

    url: str
    app: object


@contextmanager
def live_server(stores=DEMO_STORE, **options):
    """Serve until the block ends."""
    app = options.pop("app", None) or create_app(stores, resident_bytes() + EXTRA_BYTES, **options)
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield LiveServer(f"http://127.0.0.1:{port}", app)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the server did not stop"
