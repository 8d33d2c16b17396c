"""``/v1/responses``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from edgemoe.server.answers import Answers, Burst
from edgemoe.server.openai.responses_answer import ResponsesEncoder
from edgemoe.server.openai.responses_request import read_responses
from edgemoe.server.routes import Exchange, Nothing, answered
from edgemoe.server.streaming import until_gone


class ResponsesRoutes:
    """OpenAI's newer protocol."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def routes(self) -> Sequence[BaseRoute]:
        """All paths."""
        return [
            Route("/v1/responses", self._responses, methods=["POST"]),
            Route("/v1/responses/input_tokens", self._count, methods=["POST"]),
        ]

    async def _responses(self, request: Request) -> Response:
        exchange = Exchange(self._answers, request)
        body = await exchange.body()
        asked = read_responses(body, exchange.options.limits)
        prepared = await self._answers.prepare(asked)
        told = self._answers.events(prepared, exchange.record)
        encoder = ResponsesEncoder(prepared.name, body, asked)
        if body.get("stream"):
            return exchange.stream(told, encoder, asked)
        response = await until_gone(request.receive, _whole(told, encoder))
        return Nothing() if response is None else answered(response, asked)

    async def _count(self, request: Request) -> Response:
        exchange = Exchange(self._answers, request)
        asked = read_responses(await exchange.body(), exchange.options.limits)
        count = await self._answers.count(asked)
        return JSONResponse({"object": "response.input_tokens", "input_tokens": count})


async def _whole(told: AsyncGenerator[Burst], encoder: ResponsesEncoder) -> dict[str, Any]:
    """The response at its end."""
    async with aclosing(told) as bursts:
        async for burst in bursts:
            for item in burst or ():
                for _ in encoder.encode(*item):
                    pass
    return encoder.response
