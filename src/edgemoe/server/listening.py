"""uvicorn as it is run here: its address is taken before a model is loaded, it says where it listens, and it
tells the application of a signal at once.
"""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType

import uvicorn

from edgemoe.errors import RequestError
from edgemoe.server.app import Application
from edgemoe.server.protocol import PatientProtocol

log = logging.getLogger("edgemoe.server")

# A connection stays open for its next request so long. The client should be the one that closes it: where we
# did, just as it sends, it sees an error. Clients and proxies keep theirs for up to 90 s (Go's). uvicorn
# would close after 5 s, as httpx does.
KEEP_ALIVE_S = 120


@contextmanager
def bound(host: str, port: int) -> Iterator[list[socket.socket]]:
    """Sockets at all addresses of a name ("": all of the machine), which nobody can connect to yet.

    Raises:
        RequestError: there is no such name, or the address belongs to somebody else.
    """
    with ExitStack() as opened:
        try:
            found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            sockets = [opened.enter_context(_bound(*each)) for each in dict.fromkeys(found)]
        except OSError as error:
            raise _unusable(host, port, error) from error
        yield sockets


def _bound(family: int, kind: int, protocol: int, _: str, address: tuple[object, ...]) -> socket.socket:
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
    except BaseException:
        made.close()
        raise
    return made


def _unusable(host: str, port: int, error: OSError) -> RequestError:
    return RequestError(
        f"the server cannot listen at {host or 'all addresses'}, port {port}: {error.strerror or error};"
        " choose another port or host"
    )


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
            timeout_keep_alive=KEEP_ALIVE_S,
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
        try:
            await super().startup(sockets)
        except OSError as error:  # somebody else has begun to listen while the model was loaded
            await self.lifespan.shutdown()
            raise _unusable(self._app.options.host, self._app.options.port, error) from error
        names = [sock.getsockname()[:2] for server in self.servers for sock in server.sockets]
        urls = [f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}" for host, port in names]
        for url in urls:
            log.info("listening at %s", url)
        if self._on_listening is not None and urls:
            self._on_listening(urls)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End as uvicorn does. A second Ctrl-C ends running answers, too; uvicorn would leave them, and tell
        the application nothing.
        """
        await super().shutdown(sockets)
        if self.force_exit:
            for task in self.server_state.tasks:
                task.cancel()
            await self.lifespan.shutdown()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note the signal; called between two steps of the event loop's thread."""
        self._app.drain_soon()
        if not self.should_exit:
            super().handle_exit(sig, frame)
        elif sig == signal.SIGINT:
            self.force_exit = True  # as there, but uvicorn would raise this signal, too, once it has ended
