"""HTTP as uvicorn speaks it, for clients who take their time: a request's head must arrive within a bound."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 60.0  # from the first sign of a client, or the first byte of a further request, to the head's end


class PatientProtocol(H11Protocol):
    """One connection. Without this, one that sends half a head would be held for ever."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connects; called by the event loop."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Bytes came; called by the event loop."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over; called by the event loop."""
        self._stop()
        super().connection_lost(exc)

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: uvicorn would recommend packages, and the answer says what is not there."""

    def _watch(self) -> None:
        """Begin to wait for a head, unless its answer is already being made. More bytes do not begin anew."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S, self.transport.close)

    def _stop(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
