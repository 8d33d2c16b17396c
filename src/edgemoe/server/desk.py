"""Where pieces of an answer, made by the engine's thread, become events in the event loop.

The engine calls ``push``; the loop is woken once for all pieces that wait, however many came meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from edgemoe.server.events import Event, Progress, Text
from edgemoe.server.local_model import Cancel, End, Piece, Reading, Scored, Token
from edgemoe.server.writer import AnswerWriter


class Desk:
    """Works on one answer; ``ended`` has what the engine said last, or an error of this side."""

    def __init__(
        self,
        writer: AnswerWriter,
        cancel: Cancel,
        emit: Callable[[Event], None],
        note_token: Callable[[float], None],
        echo: str,
        *,
        counts_each: bool = False,
    ) -> None:
        """``note_token`` is told when each token was drawn, by ``time.monotonic``; ``echo``: the prompt,
        where it is to be told; ``counts_each``: how many tokens there are is told with each of them.
        """
        self._writer = writer
        self._cancel = cancel
        self._emit = emit
        self._note_token = note_token
        self._echo = echo
        self._counts_each = counts_each
        self._began_s = time.monotonic()
        self._pieces: deque[Piece] = deque()
        self._is_called = False
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[End] = self._loop.create_future()

    def push(self, piece: Piece) -> None:
        """Hand a piece over, from any one thread."""
        self._pieces.append(piece)
        if not self._is_called:
            self._is_called = True
            self._loop.call_soon_threadsafe(self._work)

    def _work(self) -> None:
        self._is_called = False  # first: a piece that comes from now on calls again
        while self._pieces and not self.ended.done():
            try:
                self._take(self._pieces.popleft())
            except Exception as error:
                self.ended.set_exception(error)

    def _take(self, piece: Piece) -> None:
        if isinstance(piece, Token):
            self._note_token(piece.at_s)
            events = self._writer.push(piece)
            if self._counts_each and events:
                self._emit(self._writer.counted())
            for event in events:
                self._emit(event)
            if self._writer.is_done:
                self._cancel.set()
        elif isinstance(piece, Reading):
            self._emit(Progress(piece.done, piece.total, time.monotonic() - self._began_s))
        elif isinstance(piece, Scored):
            self._emit(Text(self._echo, tuple(piece.chances)))
        else:
            self.ended.set_result(piece)
