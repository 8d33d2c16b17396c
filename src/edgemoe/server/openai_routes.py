"""``/v1/chat/completions``, ``/v1/completions`` and ``/v1/models``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from edgemoe.server.answers import Answers, Burst, Prepared
from edgemoe.server.failures import Failure, refused
from edgemoe.server.fields import Fields
from edgemoe.server.model_list import describe, list_models
from edgemoe.server.openai.chat_answer import ChatEncoder, chat_body
from edgemoe.server.openai.chat_request import read_chat
from edgemoe.server.openai.completions_answer import CompletionsEncoder, completions_body
from edgemoe.server.openai.completions_request import read_completions
from edgemoe.server.openai.stored import StoredResponses
from edgemoe.server.openai.stored_chats import StoredChats, read_metadata
from edgemoe.server.routes import Exchange, Nothing, answered, by_method


class OpenAIRoutes:
    """OpenAI's protocols."""

    def __init__(self, answers: Answers, stored: StoredResponses) -> None:
        self._answers = answers
        self._stored = StoredChats(answers, stored)

    def routes(self) -> Sequence[BaseRoute]:
        """All paths."""
        return [
            by_method("/v1/chat/completions", POST=self._chat, GET=self._stored.show_all),
            *self._stored.routes(),
            Route("/v1/completions", self._completions, methods=["POST"]),
            Route("/v1/embeddings", self._embeddings, methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/v1/models/{name:path}", self._model),
        ]

    async def _chat(self, request: Request) -> Response:
        exchange = Exchange(self._answers, request)
        body = await exchange.body()
        streams, includes_usage = stream_options(body)
        asked = read_chat(body, exchange.options.limits)
        is_kept = Fields(body).flag("store")
        if is_kept:
            read_metadata(body)
        prepared = await self._answers.prepare(asked)
        told = self._answers.events(prepared, exchange.record)
        if streams:
            encoder = ChatEncoder(
                prepared.name,
                num_choices=asked.num_choices,
                includes_usage=includes_usage,
                reports_progress=asked.reports_progress,
            )
            if is_kept:
                told = self._stored.keeping(told, exchange.owner, body, encoder.head)
            return exchange.stream(told, encoder, asked)
        wholes = await exchange.whole(told)
        if not wholes:
            return Nothing()
        completion = chat_body(prepared.name, wholes)
        if is_kept:
            await self._stored.keep(exchange.owner, body, completion)
        return answered(completion, asked)

    async def _completions(self, request: Request) -> Response:
        exchange = Exchange(self._answers, request)
        body = await exchange.body()
        streams, includes_usage = stream_options(body)
        asked = read_completions(body, exchange.options.limits)
        first = asked.requests[0]
        prepared = [await self._answers.prepare(one) for one in asked.requests]
        told = self._one_after_another(prepared, exchange)
        if streams:
            encoder = CompletionsEncoder(
                prepared[0].name,
                per_prompt=first.num_choices,
                includes_usage=includes_usage,
                reports_progress=first.reports_progress,
            )
            return exchange.stream(told, encoder, first)
        wholes = await exchange.whole(told)
        if not wholes:
            return Nothing()
        return answered(completions_body(prepared[0].name, wholes, first.num_choices), first)

    async def _one_after_another(
        self, prepared: Sequence[Prepared], exchange: Exchange
    ) -> AsyncGenerator[Burst]:
        """The events of several prompts, their answers numbered through."""
        before = 0
        for one in prepared:
            async with aclosing(self._answers.events(one, exchange.record)) as told:
                async for burst in told:
                    yield burst and [(before + choice, event) for choice, event in burst]
            before += one.request.num_choices

    async def _embeddings(self, _: Request) -> Response:
        raise Failure(400, "embeddings are not supported: these models write text", "unsupported_endpoint")

    async def _models(self, request: Request) -> Response:
        return JSONResponse(list_models(self._answers.shelf, request.query_params))

    async def _model(self, request: Request) -> Response:
        name = self._answers.shelf.resolve(request.path_params["name"])
        return JSONResponse(describe(self._answers.shelf, name))


def stream_options(body: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether to stream, and whether to tell the usage at the end."""
    fields = Fields(body)
    streams, options = fields.flag("stream"), fields.inner("stream_options")
    if options is None:
        return streams, False
    if not streams:
        raise refused("stream_options", "needs stream: true")
    return streams, options.flag("include_usage")
