"""The page at ``/``: static files of the package."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from edgemoe.server.answers import Answers
from edgemoe.server.failures import Failure
from edgemoe.server.streaming import Sleep

FILES = {"index.html": "text/html", "page.css": "text/css"}


class PageRoutes:
    """The page and what it draws."""

    def __init__(self, answers: Answers, sleep: Sleep) -> None:
        self._answers = answers
        self._sleep = sleep

    def routes(self) -> Sequence[BaseRoute]:
        """All paths."""
        return [Route("/", self._index), Route("/page/{name}", self._file)]

    async def _index(self, _: Request) -> Response:
        return page_file("index.html")

    async def _file(self, request: Request) -> Response:
        return page_file(request.path_params["name"])


def page_file(name: str) -> Response:
    """A file of the page; only those in the list exist."""
    if name not in FILES:
        raise Failure(404, "there is nothing at this path", "unknown_url")
    content = files("edgemoe.server").joinpath("page").joinpath(name).read_bytes()
    headers = {"cache-control": "no-cache", "x-content-type-options": "nosniff"}
    return Response(content, media_type=f"{FILES[name]}; charset=utf-8", headers=headers)
