"""What the routes of all protocols share: from a read request to a streamed or a whole answer."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from edgemoe.server.answers import Answers, Burst, Record
from edgemoe.server.body import read_body
from edgemoe.server.failures import Failure
from edgemoe.server.request import AnswerRequest
from edgemoe.server.streaming import Encoder, LineResponse, encoded, until_gone
from edgemoe.server.whole import Whole, collect

log = logging.getLogger("edgemoe.server")

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Exchange:
    """One request being answered."""

    def __init__(self, answers: Answers, request: Request) -> None:
        self.answers = answers
        self.options = answers.options
        self.request_id: str = request.state.request_id
        self.record: Record = request.state.record
        self.owner: str = request.state.owner
        self._request = request

    async def body(self) -> Mapping[str, Any]:
        """The JSON object that the client sent."""
        return await read_body(self._request, self.options.limits)

    def path_value(self, name: str) -> str:
        """What stands for a name in the path."""
        value: str = self._request.path_params[name]
        return value

    def stream(self, told: AsyncGenerator[Burst], encoder: Encoder, asked: AnswerRequest) -> Response:
        """A response that sends events as they come."""
        return self.send_lines(encoded(told, encoder, self._note), ignored_header(asked))

    def send_lines(self, lines: AsyncGenerator[str], headers: Mapping[str, str] = NO_HEADERS) -> Response:
        """A response that sends lines as they come."""
        return LineResponse(lines, headers, self.options.limits.send_s)

    def _note(self, failure: Failure) -> None:
        """An answer broke off after its status was sent."""
        self.answers.metrics.failed(failure.status)
        self.record.failure = failure.code
        if failure.code == "internal_error":
            log.exception("%s failed", self.request_id)

    async def whole(self, told: AsyncGenerator[Burst]) -> list[Whole] | None:
        """All answers at once; None if the client has gone."""
        return await until_gone(self._request.receive, collect(told))


def by_method(path: str, **handlers: Callable[[Request], Awaitable[Response]]) -> Route:
    """A path with a handler for each method. One route, so that the refusal of others names them all."""

    async def handle(request: Request) -> Response:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return Route(path, handle, methods=list(handlers))


class Nothing(Response):
    """What is sent to a client that has gone."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send nothing."""


def answered(body: Mapping[str, Any], asked: AnswerRequest) -> Response:
    """A whole answer."""
    return JSONResponse(body, headers=dict(ignored_header(asked)))


def ignored_header(asked: AnswerRequest) -> Mapping[str, str]:
    """Names the fields that had no effect, so that nothing is ignored in silence."""
    if not asked.ignored_fields:
        return {}
    names = ",".join(asked.ignored_fields).encode("ascii", "replace").decode()
    return {"x-edgemoe-ignored-fields": "".join(c if c.isprintable() else "?" for c in names)[:1000]}
