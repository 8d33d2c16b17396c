"""``POST /v1/responses/compact``: a conversation becomes the user's messages and a summary of the rest.

The summary is written by the model, as any answer is. It travels as the API's opaque item, so that a client
sends it back as it came.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edgemoe.server.openai.response_items import compaction_of
from edgemoe.server.openai.responses_answer import usage_body
from edgemoe.server.openai.stored import Item
from edgemoe.server.request import AnswerRequest, new_id
from edgemoe.server.whole import Whole, usage_of

MAX_SUMMARY = 2048  # tokens
_WANTED = """Summarise this conversation for somebody who goes on with it and sees only that and my messages.
Say what is wanted, what was done and found, which names, paths and values matter, and what is left to do.
Call no function. Write the summary and nothing else."""


def summary_request(asked: AnswerRequest) -> AnswerRequest:
    """The request that has a conversation summarised. Functions stay, so that the prompt begins as before."""
    wanted = {"role": "user", "content": _WANTED}
    return replace(
        asked,
        messages=[*(asked.messages or ()), wanted],
        schema=None,
        max_tokens=MAX_SUMMARY,
        clips_max_tokens=True,
        context_parts=4,  # the rest is for what comes after it
    )


def compacted(items: Sequence[Item], summary: Whole) -> dict[str, Any]:
    """The body that tells of a compacted conversation."""
    said = [item for item in items if item["type"] == "message" and item["role"] == "user"]
    return {
        "id": new_id("resp_"),
        "object": "response.compaction",
        "created_at": int(time.time()),
        "output": [*said, compaction_of(summary.text.strip())],
        "usage": usage_body(usage_of([summary], 1)),
    }
