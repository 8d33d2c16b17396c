"""Parts of a message's content: text is read; of what is no text, the model is told that it was there.

Only whoever has just sent an image can send it otherwise. So one in the last message is refused where that is
the user's own. One in a tool's result, or in an earlier message, stays in a client's history: refused, it
would end the conversation for good. There a line of text stands for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgemoe.server.failures import Failure, refused, unsupported

TEXT_PARTS = {"text", "input_text", "output_text", "refusal", "summary_text", "reasoning_text"}
# Kinds of parts that are no text, in the words of all protocols -> what they are.
MEDIA = {
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "computer_screenshot": "image",
    "audio_url": "audio",
    "input_audio": "audio",
    "video_url": "video",
    "document": "document",
    "file": "file",
    "input_file": "file",
    "container_upload": "file",
}
MAX_INNER = 4096  # parts within a part


def content_text(value: Any, name: str, *, is_new: bool = False) -> str:
    """The text of a message's content: a string, or a list of parts.

    ``is_new``: the client can still send it otherwise, so what is no text is refused.

    Raises:
        Failure: a part of a kind that nobody knows, or an image and the like where that is refused.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise refused(name, "must be a string or a list of parts")
    return "".join(part_text(part, f"{name}[{place}]", is_new=is_new) for place, part in enumerate(value))


def part_text(part: Any, name: str, *, is_new: bool = False) -> str:
    """The text of one part. Arguments and errors as of ``content_text``."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise refused(name, "must be an object with a type")
    kind = part["type"]
    if kind in TEXT_PARTS:
        return _string(part, "refusal" if kind == "refusal" and "text" not in part else "text", name)
    if kind == "tool_reference":
        return _string(part, "tool_name", name)
    if kind == "search_result":
        return _titled(part, ("title", "source"), part.get("content"), name)
    if kind == "document" and (content := _document_content(part)) is not None:
        return _titled(part, ("title", "context"), content, name)
    if kind not in MEDIA or is_new:
        raise no_text(f"{name}.type", kind)
    return f"[{MEDIA[kind]}: left out, this model reads text only]"


def no_text(name: str, kind: str) -> Failure:
    """Something in a message that is no text.

    It begins in Anthropic's words: by them Claude Code knows that the image is the trouble. Otherwise it
    tries again without one feature after another, and goes on without its search for tools.
    """
    failure = unsupported(f"{name} {kind!r}", "the models of this server read text only")
    thing = "PDF" if kind == "document" else MEDIA.get(kind)
    return replace(failure, message=f"Could not process {thing}: {failure.message}") if thing else failure


def _document_content(document: Mapping[str, Any]) -> Any:
    """What a document says, if its source is text or parts, not a file."""
    source = document.get("source")
    if not isinstance(source, dict):
        return None
    return {"text": source.get("data"), "content": source.get("content")}.get(str(source.get("type")))


def _titled(part: Mapping[str, Any], titles: Sequence[str], content: Any, name: str) -> str:
    """A text below what it is called."""
    if isinstance(content, list) and len(content) > MAX_INNER:
        raise refused(name, f"has {len(content)} parts; at most {MAX_INNER} are taken")
    lines = [_string(part, title, name) for title in titles]
    return "\n".join(line for line in (*lines, content_text(content, name)) if line)


def _string(part: Mapping[str, Any], field: str, name: str) -> str:
    value = part.get(field)
    if value is not None and not isinstance(value, str):
        raise refused(f"{name}.{field}", "must be a string")
    return value or ""
