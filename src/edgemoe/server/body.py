"""Taking a request's body off the network within limits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import anyio
from starlette.requests import ClientDisconnect, Request

from edgemoe.server.failures import Failure
from edgemoe.server.fields import parse_body
from edgemoe.server.options import Limits

READ_S = 60.0  # a body that takes longer comes from nobody who wants an answer


async def read_body(request: Request, limits: Limits) -> Mapping[str, Any]:
    """The JSON object of a body.

    Raises:
        Failure: it is too large (413), too slow (408), or no JSON object (400).
    """
    try:
        with anyio.fail_after(READ_S):
            content = await _content(request, limits.body_bytes)
    except TimeoutError:
        raise Failure(408, f"the body did not arrive within {READ_S:.0f} s", "timeout") from None
    except ClientDisconnect:
        raise Failure(400, "the connection was closed", "disconnected") from None
    if len(content) > 1 << 20:
        return await asyncio.to_thread(parse_body, content)
    return parse_body(content)


async def _content(request: Request, most: int) -> bytes:
    coding = request.headers.get("content-encoding", "identity")
    if coding.strip().lower() not in {"", "identity"}:
        raise Failure(415, f"the body is coded as {coding[:100]!r}; send it plain", "unsupported_media_type")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise _too_large(most)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise _too_large(most)
        parts.append(part)
    return b"".join(parts)


def _too_large(most: int) -> Failure:
    return Failure(413, f"the body is larger than {most} bytes", "request_too_large")
