"""How a server is set up: addresses, keys and limits. Nothing here changes a token."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgemoe.errors import RequestError

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What one request, and all together, may ask for."""

    body_bytes: int = 32 * MIB
    num_waiting: int = 64  # requests in the queue; more are told to come back (429)
    num_choices: int = 16
    num_stops: int = 16
    stop_chars: int = 512
    num_tools: int = 256
    schema_bytes: int = 256 << 10
    num_stored: int = 1000  # responses that are kept in memory for clients that ask again
    stored_bytes: int = 4 * MIB  # of all of them, compressed
    event_bytes: int = 4 * MIB  # of the events of one response that is made in the background
    request_s: float = 3600.0  # from arrival to the last token
    send_s: float = 120.0  # a client that takes nothing for so long has gone
    drain_s: float = 30.0  # running answers may go on for so long after SIGTERM


@dataclass(frozen=True)
class ServerOptions:
    """Where the server listens, who may ask, and how models share the machine."""

    host: str = "127.0.0.1"
    port: int = 8080
    api_key: str | None = None
    parallel: int = 1
    heartbeat_s: float = 10.0  # clients and proxies give up after 15 s to 300 s of silence
    idle_unload_s: float | None = None  # None: a model stays loaded
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()  # names beside loopback that the Host header may say
    logs_prompts: bool = False  # prompts and answers, a line each
    park: Path | None = None  # folder for states of texts; None: they are in memory only
    park_bytes: int = 8 << 30
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not 1 <= self.parallel <= 64:
            raise RequestError(f"parallel is {self.parallel}; give 1 to 64")
        try:
            self.host.encode("idna")
        except UnicodeError:
            raise RequestError(
                f"host is {self.host!r:.60}, no name or address; give one, such as 127.0.0.1"
            ) from None
        if not 0 <= self.port <= 65535:
            raise RequestError(f"port is {self.port}; give 0 to 65535")
        if not 0 < self.heartbeat_s <= 15:
            raise RequestError(f"heartbeat_s is {self.heartbeat_s}; give up to 15 seconds")
        if self.park_bytes < MIB:
            raise RequestError(f"{self.park_bytes} bytes for parked texts; give at least 1MiB")
        if self.api_key is not None and not self.api_key.strip():
            raise RequestError("the API key is empty; give a text, or leave the option out")

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this machine can connect."""
        return self.host in {"127.0.0.1", "::1", "localhost"}
