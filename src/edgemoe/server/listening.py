"""uvicorn as it is run here: it says where it listens, and tells the application of a signal at once."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from types import FrameType

import uvicorn

from edgemoe.server.app import Application
from edgemoe.server.protocol import PatientProtocol

log = logging.getLogger("edgemoe.server")


class Listener(uvicorn.Server):
    """The application behind an address of its options; ``run`` returns when it has stopped."""

    def __init__(self, app: Application, on_listening: Callable[[Sequence[str]], None] | None = None) -> None:
        """``on_listening`` is told of the addresses once clients can come."""
        config = uvicorn.Config(
            app,
            host=app.options.host,
            port=app.options.port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=int(app.options.limits.drain_s),
            server_header=False,
            http=PatientProtocol,
            ws="none",  # a request for one is answered as any other that is not there
        )
        super().__init__(config)
        self._app = app
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say where the server is: with port 0 nobody knows before."""
        await super().startup(sockets)
        names = [sock.getsockname()[:2] for server in self.servers for sock in server.sockets]
        urls = [f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}" for host, port in names]
        for url in urls:
            log.info("listening at %s", url)
        if self._on_listening is not None and urls:
            self._on_listening(urls)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note the signal; called between two steps of the event loop's thread."""
        self._app.drain_soon()
        super().handle_exit(sig, frame)
