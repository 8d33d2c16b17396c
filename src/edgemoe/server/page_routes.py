"""The page at ``/``: static files of the package, and the experts it draws."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from edgemoe.server.answers import Answers
from edgemoe.server.expert_map import Frame, frame, resident
from edgemoe.server.failures import Failure
from edgemoe.server.outbox import Outbox
from edgemoe.server.streaming import LineResponse, data

FILES = {
    "index.html": "text/html",
    "page.css": "text/css",
    "icon.svg": "image/svg+xml",
    "page.js": "text/javascript",
    "chat.js": "text/javascript",
    "events.js": "text/javascript",
    "experts.js": "text/javascript",
    "markdown.js": "text/javascript",
}
HEADERS = {
    "cache-control": "no-cache",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'self'; base-uri 'none'; frame-ancestors 'none'",
}
MAX_WATCHERS = 16


class PageRoutes:
    """The page and what it draws."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def routes(self) -> Sequence[BaseRoute]:
        """All paths."""
        return [Route("/", self._index), Route("/page/{name}", self._file), Route("/experts", self._experts)]

    async def _index(self, _: Request) -> Response:
        return page_file("index.html")

    async def _file(self, request: Request) -> Response:
        return page_file(request.path_params["name"])

    async def _experts(self, _: Request) -> Response:
        if len(self._answers.watchers) >= MAX_WATCHERS:
            raise Failure(429, f"{MAX_WATCHERS} pages watch already", "too_many_watchers", retry_after_s=30)
        return LineResponse(self._lines(), {}, self._answers.options.limits.send_s)

    async def _lines(self) -> AsyncGenerator[str]:
        frames: Outbox[Frame] = Outbox()
        self._answers.watchers.add(frames)
        try:
            yield data(self._now())
            while True:
                new = await frames.take(self._answers.options.heartbeat_s)
                yield data(new[-1] if new else self._now())
        finally:
            self._answers.watchers.discard(frames)

    def _now(self) -> Frame:
        """The experts in memory. While an answer is written only its own thread may look at them."""
        local = self._answers.shelf.resident
        if local is None or self._answers.queue.num_running:
            return {}
        return frame(local.model, resident(local.model.engine.experts.cache))


def page_file(name: str) -> Response:
    """A file of the page; only those in the list exist."""
    if name not in FILES:
        raise Failure(404, "there is nothing at this path", "unknown_url")
    content = files("edgemoe.server").joinpath("page").joinpath(name).read_bytes()
    return Response(content, media_type=f"{FILES[name]}; charset=utf-8", headers=HEADERS)
