"""``/v1/messages``."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from edgemoe.server.answers import Answers
from edgemoe.server.anthropic.answer import MessageEncoder, whole_body
from edgemoe.server.anthropic.request import read_messages_request
from edgemoe.server.fields import Fields
from edgemoe.server.routes import Exchange, Nothing, answered


class AnthropicRoutes:
    """Anthropic's protocol."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def routes(self) -> Sequence[BaseRoute]:
        """All paths."""
        return [
            Route("/v1/messages", self._messages, methods=["POST"]),
            Route("/v1/messages/count_tokens", self._count, methods=["POST"]),
        ]

    async def _messages(self, request: Request) -> Response:
        exchange = Exchange(self._answers, request)
        body = await exchange.body()
        asked = read_messages_request(body, exchange.options.limits, needs_max_tokens=True)
        prepared = await self._answers.prepare(asked)
        told = self._answers.events(prepared, exchange.record)
        if Fields(body).flag("stream"):
            num_prompt = len(prepared.prompt.token_ids) if prepared.prompt else 1
            encoder = MessageEncoder(prepared.name, num_prompt, exchange.request_id)
            return exchange.stream(told, encoder, asked)
        wholes = await exchange.whole(told)
        return answered(whole_body(prepared.name, wholes[0]), asked) if wholes else Nothing()

    async def _count(self, request: Request) -> Response:
        exchange = Exchange(self._answers, request)
        body = await exchange.body()
        asked = read_messages_request(body, exchange.options.limits, needs_max_tokens=False)
        return JSONResponse({"input_tokens": await self._answers.count(asked)})
