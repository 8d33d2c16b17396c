"""What stands before every request: ids, host names, origins, the API key, errors in the path's protocol."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgemoe.errors import printable
from edgemoe.server.answers import Record
from edgemoe.server.failures import Failure, failure_of
from edgemoe.server.metrics import Metrics
from edgemoe.server.options import ServerOptions
from edgemoe.server.request import new_id

log = logging.getLogger("edgemoe.server")

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
PUBLIC_PATHS = re.compile(r"/|/health|/v1/health|/page/.*|/favicon\.ico")
SHOWN_PATH = 200  # characters of a path in the log
SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
EXPOSED_HEADERS = "X-Request-Id, Request-Id, Retry-After, X-Should-Retry, X-Edgemoe-Ignored-Fields"
HEADER_NAMES = re.compile(r"[A-Za-z0-9, _-]{1,2000}")


def preflight(headers: Mapping[str, str]) -> dict[str, str]:
    """What a browser wants to know before a request. Official clients send a dozen headers of their own."""
    wanted = headers.get("access-control-request-headers", "")
    out = {
        "access-control-allow-methods": "GET, POST, DELETE, OPTIONS",
        "access-control-allow-headers": wanted if HEADER_NAMES.fullmatch(wanted) else "Authorization",
        "access-control-max-age": "600",
    }
    if (
        headers.get("access-control-request-private-network") == "true"
    ):  # of a page elsewhere, to this machine
        out["access-control-allow-private-network"] = "true"
    return out


def given_key(headers: Mapping[str, str]) -> str:
    """The API key that a client shows; "" if it shows none."""
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    return bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")


class Guard:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, options: ServerOptions, metrics: Metrics) -> None:
        self._app = app
        self._options = options
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here; an ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["path"] = plain_path(scope["path"], scope.get("root_path", ""))
        headers = Headers(scope=scope)
        visit = _Visit(scope, headers, send)
        scope.setdefault("state", {}).update(
            record=visit.record, request_id=visit.request_id, owner=visit.owner
        )
        try:
            origin = self._check_origin(headers)
            visit.extra |= origin
            if scope["method"] == "OPTIONS":
                await visit.answer(200, {}, preflight(headers))
                return
            self._check_host(headers)
            if not PUBLIC_PATHS.fullmatch(scope["path"]):
                self._check_key(headers)
            await self._app(scope, receive, visit.send)
        except Exception as error:
            await self._fail(visit, error)
        finally:
            visit.log()

    async def _fail(self, visit: _Visit, error: Exception) -> None:
        failure, more = failure_of(error), {}
        if isinstance(error, HTTPException):
            failure, more = _http_failure(error, visit), dict(error.headers or {})
        if failure.code == "internal_error":
            log.exception("%s %s failed", visit.request_id, visit.path)
        self._metrics.failed(failure.status)
        if visit.status is not None:
            visit.record.failure = failure.code
        else:
            is_anthropic = visit.path.startswith("/v1/messages")
            body = failure.anthropic(visit.request_id) if is_anthropic else failure.openai()
            await visit.answer(failure.status, body, {**more, **failure.headers()})

    def _check_host(self, headers: Mapping[str, str]) -> None:
        """Refuse names that are not ours: a web page could have made its own name lead to this machine."""
        allowed = set(self._options.allowed_hosts)
        if not self._options.is_loopback and not allowed:
            return
        name = host_name(headers.get("host", ""))
        if name not in allowed | LOOPBACK_NAMES | {self._options.host}:
            message = f"the host name {name[:100]!r} is not allowed; --allowed-host allows it"
            raise Failure(403, message, "host_not_allowed")

    def _check_origin(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Refuse web pages of other origins, unless allowed; the headers that allow them."""
        origin = headers.get("origin")
        if origin is None:
            return {}
        allowed = self._options.cors_origins
        if origin in allowed or "*" in allowed:
            return {
                "access-control-allow-origin": origin,
                "access-control-expose-headers": EXPOSED_HEADERS,
                "vary": "Origin",
            }
        if urlsplit(origin).netloc == headers.get("host"):
            return {}
        message = f"the origin {origin[:100]!r} is not allowed; --cors-origin allows it"
        raise Failure(403, message, "origin_not_allowed")

    def _check_key(self, headers: Mapping[str, str]) -> None:
        """Compare the key in constant time."""
        if self._options.api_key is None:
            return
        if not hmac.compare_digest(given_key(headers).encode(), self._options.api_key.encode()):
            raise Failure(401, "the API key is missing or wrong", "invalid_api_key")


class _Visit:
    """One request on its way through: its id, its status once that is sent, and its line in the log."""

    def __init__(self, scope: Scope, headers: Headers, send: Send) -> None:
        given = headers.get("x-request-id", "")
        self.request_id = given if SANE_ID.fullmatch(given) else new_id("req_")
        self.method, self.path = scope["method"], scope["path"]
        self.status: int | None = None
        self.extra: dict[str, str] = {}
        address = scope["client"][0] if scope.get("client") else "?"
        key = given_key(headers)
        self.owner = hashlib.sha256(key.encode()).hexdigest()  # of what is kept for whoever has this key
        self.record = Record(f"{address} {key}", self.request_id)
        self._send = send

    async def send(self, message: Message) -> None:
        """Pass a message on, with the id and the origin's headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            spent_ms = round((time.monotonic() - self.record.arrived_s) * 1000)
            extra = {"x-request-id": self.request_id, "request-id": self.request_id}
            extra |= {"openai-processing-ms": str(spent_ms)} | self.extra
            message["headers"] = [
                *message.get("headers", []),
                *(
                    (key.encode("latin-1"), value.encode("latin-1", "replace"))
                    for key, value in extra.items()
                ),
            ]
        await self._send(message)

    async def answer(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        """Answer with JSON."""
        content = json.dumps(body).encode()
        lines = {"content-type": "application/json", "content-length": str(len(content))} | dict(headers)
        raw = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in lines.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": raw})
        await self.send({"type": "http.response.body", "body": content})

    def log(self) -> None:
        """One line: what was asked and what it cost, and nothing of its text."""
        record, now_s = self.record, time.monotonic()
        parts = [f"id={self.request_id}", f"status={self.status}", f"total_s={now_s - record.arrived_s:.3f}"]
        if record.model:
            parts.append(f"model={json.dumps(record.model)}")
        if record.started_s is not None:
            parts.append(f"queue_s={record.started_s - record.arrived_s:.3f}")
        if record.first_s is not None and record.started_s is not None:
            parts.append(f"first_s={record.first_s - record.started_s:.3f}")
        if record.finish is not None:
            usage = record.finish.usage
            parts.append(
                f"prompt={usage.num_prompt} cached={usage.num_cached} answer={record.num_completion}"
            )
            parts.append(f"finish={record.finish.reason}")
        if record.failure is not None:
            parts.append(f"failed={record.failure}")
        log.info("%s %s %s", self.method, printable(self.path[:SHOWN_PATH]), " ".join(parts))


def host_name(host: str) -> str:
    """The name in a Host header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def plain_path(path: str, root: str = "") -> str:
    """A path without doubled slashes and one at its end, which come of addresses that end in a slash, and
    without the address that a request through a proxy may have before it.
    ``root``: where a host has the application, whose own first page keeps its slash.
    """
    plain = re.sub("/{2,}", "/", re.sub(r"\Ahttps?://[^/]*", "", path)).rstrip("/")
    return f"{root}/" if plain == root else plain


def _http_failure(error: HTTPException, visit: _Visit) -> Failure:
    codes = {404: "unknown_url", 405: "method_not_allowed"}
    what = f"{visit.method} {printable(visit.path[:SHOWN_PATH])}"
    to_choose = (
        "OpenAI's clients are given this server's address with /v1 behind it, Anthropic's clients without"
    )
    if visit.path.startswith("/api/"):
        to_choose = (
            "Ollama's API is not served: choose OpenAI's in the client, at this address with /v1 behind it"
        )
    message = {
        404: f"there is nothing at {what}; {to_choose}",
        405: f"there is no {what}; this path takes {(error.headers or {}).get('Allow', 'other methods')}",
    }
    return Failure(
        error.status_code,
        message.get(error.status_code, str(error.detail)),
        codes.get(error.status_code, "http_error"),
    )
