"""``/v1/responses``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from edgemoe.server.answers import Answers, Burst
from edgemoe.server.failures import Failure
from edgemoe.server.fields import Fields
from edgemoe.server.openai.background import Background, Running
from edgemoe.server.openai.compacting import compacted, summary_request
from edgemoe.server.openai.event_log import gone, read_kept, read_log
from edgemoe.server.openai.replay import replayed
from edgemoe.server.openai.response_items import item_not_found, page_of, references, whole_items
from edgemoe.server.openai.response_tools import ResponseTools
from edgemoe.server.openai.responses_answer import ResponsesEncoder
from edgemoe.server.openai.responses_request import read_delivery, read_place, read_responses
from edgemoe.server.openai.stored import Item, Kept, StoredResponses
from edgemoe.server.routes import Exchange, Nothing, answered, by_method, ignored_header
from edgemoe.server.streaming import until_gone


class ResponsesRoutes:
    """OpenAI's newer protocol."""

    def __init__(self, answers: Answers, stored: StoredResponses) -> None:
        self._answers = answers
        self._stored = stored
        self._background = Background(self._keep, answers.options.limits.event_bytes)

    def routes(self) -> Sequence[BaseRoute]:
        """All paths."""
        one = "/v1/responses/{response_id}"
        return [
            Route("/v1/responses", self._responses, methods=["POST"]),
            Route("/v1/responses/input_tokens", self._count, methods=["POST"]),
            Route("/v1/responses/compact", self._compact, methods=["POST"]),
            by_method(one, GET=self._show, DELETE=self._delete),
            Route(f"{one}/cancel", self._cancel, methods=["POST"]),
            Route(f"{one}/input_items", self._input_items, methods=["GET"]),
        ]

    async def close(self) -> None:
        """End what no client waits for."""
        await self._background.close()

    async def _responses(self, request: Request) -> Response:
        exchange = Exchange(self._answers, request)
        body, history = await self._read(exchange)
        delivery = read_delivery(body)
        tools = ResponseTools(exchange.options.limits)
        # In a thread: a grammar of a custom tool may take a second to check.
        asked = await asyncio.to_thread(read_responses, body, exchange.options.limits, history, tools)
        prepared = await self._answers.prepare(asked)
        encoder = ResponsesEncoder(prepared.name, body, tools.by_name)
        kept = Kept(encoder.response, [*history, *whole_items(body.get("input"))])
        told = self._answers.events(prepared, exchange.record)
        if delivery.in_background:
            running = self._background.start(exchange.owner, kept, encoder, told)
            if delivery.streams:
                return exchange.send_lines(self._lines(running, -1), ignored_header(asked))
            return answered(encoder.response, asked)
        if delivery.is_kept:
            told = self._keeping(told, exchange.owner, kept)
        if delivery.streams:
            return exchange.stream(told, encoder, asked)
        response = await until_gone(request.receive, _whole(told, encoder))
        return Nothing() if response is None else answered(response, asked)

    async def _read(self, exchange: Exchange) -> tuple[Mapping[str, Any], Sequence[Item]]:
        """A body with whole items in place of references, and the items that stand before its own.

        Raises:
            Failure: the response, or an item, that it names is not there.
        """
        body = await exchange.body()
        previous = Fields(body).text("previous_response_id")
        history: Sequence[Item] = ()
        if previous is not None:
            packed = self._stored.find(exchange.owner, previous)
            if packed is None:
                message = f"Previous response with id '{previous[:200]}' not found."
                raise Failure(400, message, "previous_response_not_found", "previous_response_id")
            history = (await asyncio.to_thread(packed.unpack)).history
        named = references(body.get("input"))
        if named:
            items = list(body["input"])
            for place, item_id in named:
                items[place] = await self._item(exchange.owner, item_id)
            body = {**body, "input": items}
        return body, history

    async def _item(self, owner: str, item_id: str) -> Item:
        packed = self._stored.find_item(owner, item_id)
        if packed is None:
            raise item_not_found(item_id)
        kept = await asyncio.to_thread(packed.unpack)
        return next(item for item in kept.response["output"] if item["id"] == item_id)

    async def _keeping(self, told: AsyncGenerator[Burst], owner: str, kept: Kept) -> AsyncGenerator[Burst]:
        """The events of a response, which is kept behind the last: before clients hear that it is whole."""
        async with aclosing(told) as bursts:
            async for burst in bursts:
                yield burst
        await self._keep(owner, kept)

    async def _keep(self, owner: str, kept: Kept) -> None:
        packed = await asyncio.to_thread(self._stored.pack, kept)
        if packed is None:
            kept.response["store"] = False
        else:
            self._stored.keep(owner, packed)

    async def _found(self, exchange: Exchange) -> Kept:
        """The response of the path.

        Raises:
            Failure: there is none, or it is another key's.
        """
        response_id = exchange.path_value("response_id")
        running = self._background.find(exchange.owner, response_id)
        if running is not None:
            return running.kept
        packed = self._stored.find(exchange.owner, response_id)
        if packed is None:
            raise not_found(response_id)
        return await asyncio.to_thread(packed.unpack)

    async def _show(self, request: Request) -> Response:
        exchange = Exchange(self._answers, request)
        query = request.query_params
        if request.method == "HEAD" or query.get("stream", "false").lower() in {"false", "0", ""}:
            return JSONResponse((await self._found(exchange)).response)
        after = read_place(query)
        running = self._background.find(exchange.owner, exchange.path_value("response_id"))
        if running is not None:
            running.events.since(after + 1)  # what is not there any more says so here
            return exchange.send_lines(self._lines(running, after))
        kept = await self._found(exchange)
        if after >= 0 and not kept.events and kept.response["background"]:
            raise gone(after + 1)
        return exchange.send_lines(read_kept(kept.events or replayed(kept.response), kept.response, after))

    def _lines(self, running: Running, after: int) -> AsyncGenerator[str]:
        return read_log(running.events, running.kept.response, after, self._answers.options.heartbeat_s)

    async def _input_items(self, request: Request) -> Response:
        exchange = Exchange(self._answers, request)
        return JSONResponse(page_of((await self._found(exchange)).items, request.query_params))

    async def _delete(self, request: Request) -> Response:
        exchange = Exchange(self._answers, request)
        response_id = exchange.path_value("response_id")
        await self._background.cancel(exchange.owner, response_id)
        if not self._stored.forget(exchange.owner, response_id):
            raise not_found(response_id)
        return JSONResponse({"id": response_id, "object": "response", "deleted": True})

    async def _cancel(self, request: Request) -> Response:
        exchange = Exchange(self._answers, request)
        kept = await self._found(exchange)
        if not kept.response["background"]:
            raise Failure(400, "Cannot cancel a synchronous response.")
        await self._background.cancel(exchange.owner, kept.response["id"])
        return JSONResponse((await self._found(exchange)).response)

    async def _count(self, request: Request) -> Response:
        exchange = Exchange(self._answers, request)
        body, history = await self._read(exchange)
        asked = read_responses(body, exchange.options.limits, history)
        count = await self._answers.count(asked)
        return JSONResponse({"object": "response.input_tokens", "input_tokens": count})

    async def _compact(self, request: Request) -> Response:
        exchange = Exchange(self._answers, request)
        body, history = await self._read(exchange)
        asked = summary_request(read_responses(body, exchange.options.limits, history))
        prepared = await self._answers.prepare(asked)
        wholes = await exchange.whole(self._answers.events(prepared, exchange.record))
        if not wholes:
            return Nothing()
        items = [*history, *whole_items(body.get("input"))]
        return answered(compacted(items, wholes[0]), asked)


def not_found(response_id: str) -> Failure:
    """There is no such response, or none of this key."""
    return Failure(404, f"Response with id '{response_id[:200]}' not found.")


async def _whole(told: AsyncGenerator[Burst], encoder: ResponsesEncoder) -> dict[str, Any]:
    """The response at its end."""
    async with aclosing(told) as bursts:
        async for burst in bursts:
            for item in burst or ():
                encoder.take(*item)
    return encoder.response
