"""Chat completions that clients may ask for again: those that said ``store: true``."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from edgemoe.server.answers import Answers, Burst
from edgemoe.server.failures import Failure
from edgemoe.server.fields import Fields
from edgemoe.server.openai.chat_answer import chat_body
from edgemoe.server.openai.response_items import page_of
from edgemoe.server.openai.stored import Item, Kept, Packed, StoredResponses
from edgemoe.server.routes import Exchange, by_method
from edgemoe.server.whole import Whole, add_all

MAX_PAIRS, MAX_KEY, MAX_VALUE = 16, 64, 512  # of metadata, as the API has it
METADATA_FIELD = re.compile(r"metadata\[(.*)\]")
# What a kept completion tells of its request.
ECHOED = (
    "frequency_penalty",
    "presence_penalty",
    "response_format",
    "seed",
    "temperature",
    "tool_choice",
    "tools",
    "top_p",
)


def read_metadata(body: Mapping[str, Any]) -> dict[str, str]:
    """What a client notes beside a completion.

    Raises:
        Failure: it is more than the API takes.
    """
    fields = Fields(body)
    pairs = fields.mapping("metadata")
    if len(pairs) > MAX_PAIRS:
        raise fields.fail("metadata", f"has {len(pairs)} keys; at most {MAX_PAIRS} are taken")
    for key, value in pairs.items():
        if len(key) > MAX_KEY or not isinstance(value, str) or len(value) > MAX_VALUE:
            why = f"keys have at most {MAX_KEY} characters, values are texts of at most {MAX_VALUE}"
            raise fields.fail("metadata", why)
    return pairs


class StoredChats:
    """The kept completions, and the paths by which clients see them."""

    def __init__(self, answers: Answers, stored: StoredResponses) -> None:
        """``stored`` may hold other things too: completions have owners of their own."""
        self._answers = answers
        self._stored = stored

    def routes(self) -> Sequence[BaseRoute]:
        """All paths but ``/v1/chat/completions`` itself, where completions are made."""
        one = "/v1/chat/completions/{completion_id}"
        return [
            by_method(one, GET=self._show, POST=self._update, DELETE=self._delete),
            by_method(f"{one}/messages", GET=self._messages),
        ]

    async def keep(self, owner: str, body: Mapping[str, Any], completion: Mapping[str, Any]) -> None:
        """Keep a completion with the request that it answers, unless it alone is too large."""
        told = {key: body.get(key) for key in ECHOED} | {"metadata": read_metadata(body)}
        await self._put(_owner(owner), Kept({**completion, **told}, body["messages"]), time.monotonic_ns())

    async def keeping(
        self, told: AsyncGenerator[Burst], owner: str, body: Mapping[str, Any], head: Mapping[str, Any]
    ) -> AsyncGenerator[Burst]:
        """The events of a streamed completion, kept behind the last. ``head``: its id, model and time."""
        wholes: list[Whole] = []
        async with aclosing(told) as bursts:
            async for burst in bursts:
                add_all(wholes, burst)
                yield burst
        await self.keep(owner, body, {**chat_body(head["model"], wholes), **head})

    async def show_all(self, request: Request) -> Response:
        """``GET /v1/chat/completions``: those of one key, in the order in which they were made."""
        exchange = Exchange(self._answers, request)
        query = request.query_params
        model = query.get("model")
        wanted = {match[1]: value for key, value in query.items() if (match := METADATA_FIELD.fullmatch(key))}
        found = [
            {"id": packed.response_id, "packed": packed}
            for packed in sorted(
                self._stored.all_of(_owner(exchange.owner)), key=lambda packed: packed.label["made"]
            )
            if model in {None, packed.label["model"]} and wanted.items() <= packed.label["metadata"].items()
        ]
        page = page_of(found, query, "asc")
        return JSONResponse(page | await self._unpacked([entry["packed"] for entry in page["data"]]))

    async def _unpacked(self, packed: Sequence[Packed]) -> dict[str, Any]:
        """The entries of a page, as many as have room in memory: compressed, a thousand might be small."""
        shown: list[dict[str, Any]] = []
        room = self._stored.most_bytes
        for one in packed:
            room -= one.unpacked_bytes
            if shown and room < 0:
                return {"data": shown, "last_id": shown[-1]["id"], "has_more": True}
            shown.append((await asyncio.to_thread(one.unpack)).response)
        return {"data": shown}

    def _packed(self, exchange: Exchange) -> Packed:
        completion_id = exchange.path_value("completion_id")
        packed = self._stored.find(_owner(exchange.owner), completion_id)
        if packed is None:
            raise not_found(completion_id)
        return packed

    async def _show(self, request: Request) -> Response:
        packed = self._packed(Exchange(self._answers, request))
        return JSONResponse((await asyncio.to_thread(packed.unpack)).response)

    async def _update(self, request: Request) -> Response:
        exchange = Exchange(self._answers, request)
        metadata = read_metadata(await exchange.body())
        packed = self._packed(exchange)
        kept = await asyncio.to_thread(packed.unpack)
        kept.response["metadata"] = metadata
        await self._put(_owner(exchange.owner), kept, packed.label["made"])
        return JSONResponse(kept.response)

    async def _put(self, owner: str, kept: Kept, made: int) -> None:
        told = kept.response
        label = {"made": made, "model": told["model"], "metadata": told["metadata"]}
        packed = await asyncio.to_thread(self._stored.pack, kept, label)
        if packed is not None:
            self._stored.keep(owner, packed)

    async def _delete(self, request: Request) -> Response:
        exchange = Exchange(self._answers, request)
        completion_id = exchange.path_value("completion_id")
        if not self._stored.forget(_owner(exchange.owner), completion_id):
            raise not_found(completion_id)
        return JSONResponse({"id": completion_id, "object": "chat.completion.deleted", "deleted": True})

    async def _messages(self, request: Request) -> Response:
        kept = await asyncio.to_thread(self._packed(Exchange(self._answers, request)).unpack)
        completion_id = kept.response["id"]
        shown = [_message(item, f"{completion_id}-{place}") for place, item in enumerate(kept.items)]
        return JSONResponse(page_of(shown, request.query_params, "asc"))


def _owner(owner: str) -> str:
    return f"chat {owner}"


def _message(message: Item, message_id: str) -> dict[str, Any]:
    """A message of the request as it is shown again: parts have a field of their own."""
    content = message.get("content")
    parts = content if isinstance(content, list) else None
    text = content if isinstance(content, str) else None
    return {"refusal": None, **message, "id": message_id, "content": text, "content_parts": parts}


def not_found(completion_id: str) -> Failure:
    """There is no such completion, or none of this key."""
    return Failure(404, f"Chat completion with id '{completion_id[:200]}' not found.")
