"""Mistral: ``[TOOL_CALLS]name[ARGS]{...}``, earlier ``[TOOL_CALLS] [{"name": ..., "arguments": ...}]``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgemoe.server.dialects.call_readers import JsonCall, named_call
from edgemoe.server.dialects.json_span import dump_arguments
from edgemoe.server.dialects.qwen import THINK
from edgemoe.server.dialects.reader import Call, CallReader, Manner, Mark, Schemas

_LONGEST_HEAD = 300  # a function's name and marks


def _parse(head: str, value: Any) -> Sequence[Call] | None:
    if isinstance(value, list):
        calls = [named_call(entry) for entry in value]
        return None if head or None in calls or not calls else [call for call in calls if call is not None]
    name, mark, rest = head.partition("[ARGS]")
    name = name.partition("[CALL_ID]")[0].strip()
    if not mark or rest.strip() or not name or not isinstance(value, dict):
        return None
    return [Call(name, dump_arguments(value))]


def _open(_: Schemas) -> CallReader:
    return MistralCall(_parse, "", _LONGEST_HEAD)


class MistralCall(JsonCall):
    """The brackets of ``[ARGS]`` and ``[CALL_ID]`` are no JSON."""

    def _find_start(self) -> bool:
        text = self._text
        if text.lstrip().startswith("["):
            self._start = len(text) - len(text.lstrip())
        elif (place := text.find("[ARGS]")) >= 0 and (brace := text.find("{", place)) >= 0:
            self._start = brace
        return self._start is not None


MISTRAL = Manner(
    (THINK, Mark("[THINK]", None), Mark("[TOOL_CALLS]", _open)), ("</think>", "[/THINK]"), silent=("</s>",)
)
