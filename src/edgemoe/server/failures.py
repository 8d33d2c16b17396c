"""What a client is told when a request fails: a status, a body in its protocol's words, and whether to retry.

Official clients retry 408, 409, 429 and 5xx twice on their own. With a slow engine that is three prompts read
for one error, so every answer says by ``x-should-retry`` whether another try can help.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgemoe.errors import BudgetError, EdgeMoEError, RequestError

# Status -> kind of error, in the words of each protocol.
OPENAI_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
ANTHROPIC_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}
DEFAULT_KIND = "invalid_request_error"


@dataclass(eq=False)
class Failure(Exception):
    """A request that cannot be answered. ``retry_after_s``: another try may succeed after so long."""

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    retry_after_s: int | None = None

    def __str__(self) -> str:
        return self.message

    def openai(self) -> dict[str, Any]:
        """The body that OpenAI's clients expect."""
        kind = OPENAI_KINDS.get(self.status, DEFAULT_KIND)
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def anthropic(self, request_id: str) -> dict[str, Any]:
        """The body that Anthropic's clients expect."""
        kind = ANTHROPIC_KINDS.get(self.status, DEFAULT_KIND)
        error = {"type": kind, "message": self.message}
        return {"type": "error", "error": error, "request_id": request_id}

    def headers(self) -> Mapping[str, str]:
        """Whether to retry, and when."""
        if self.retry_after_s is None:
            return {"x-should-retry": "false"}
        return {"x-should-retry": "true", "retry-after": str(self.retry_after_s)}


def refused(param: str, why: str) -> Failure:
    """A field that has no such value."""
    return Failure(400, f"{param}: {why}", "invalid_value", param)


def unsupported(param: str, why: str) -> Failure:
    """A field, maybe with the value behind it, that would change the answer and that we do not act on."""
    return Failure(400, f"{param} is not supported: {why}", "unsupported_parameter", param.partition(" ")[0])


def too_long(num_prompt: int, max_tokens: int | None, context: int) -> Failure:
    """The prompt, or the prompt and the answer asked for, exceed the context; in OpenAI's words."""
    asked = num_prompt + (max_tokens or 0)
    parts = f" ({num_prompt} in the prompt, {max_tokens} in the completion)" if max_tokens else ""
    message = (
        f"This model's maximum context length is {context} tokens. However, you requested {asked} tokens"
        f"{parts}. Shorten the prompt, lower max_tokens, or start the server with a longer --context."
    )
    return Failure(400, message, "context_length_exceeded", "messages")


def prompt_too_long(num_prompt: int, context: int) -> Failure:
    """The prompt exceeds the context; in Anthropic's words, by which agents decide to compact."""
    return Failure(
        400, f"prompt is too long: {num_prompt} tokens > {context} maximum", "context_length_exceeded"
    )


def failure_of(error: BaseException) -> Failure:
    """What to tell the client of any error that reached the top."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, RequestError):
        return Failure(400, str(error), "invalid_value")
    if isinstance(error, BudgetError):
        return Failure(500, str(error), "budget")
    if isinstance(error, EdgeMoEError):
        return Failure(500, str(error), "engine_error")
    return Failure(500, f"defect: {type(error).__name__}; the server's log has more", "internal_error")
