"""A server in a thread of a benchmark."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

import edgemoe.server


@contextmanager
def served(store: Path, memory: str, **options: Any) -> Iterator[tuple[str, Any]]:
    """The URL and the application of a server of one store, called "model"; ``options`` of create_app."""
    app = edgemoe.server.create_app(store, memory, aliases=("model",), **options)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", app
    server.should_exit = True
    thread.join()
