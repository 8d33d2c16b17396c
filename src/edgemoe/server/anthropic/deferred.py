"""Tools that a prompt does not begin with (``defer_loading``): a search of the client's finds them.

What it found comes as references in a tool's result. There the definitions are written, and not at the front,
so that all that stands before them is the same text as in the turn before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgemoe.server.tools import definitions_text

REFERENCE = "tool_reference"


class DeferredTools:
    """The deferred tools of one request; ``found`` has the names of those that the conversation refers to."""

    def __init__(self, tools: Sequence[Mapping[str, Any]]) -> None:
        """``tools`` are in the shape of chat templates."""
        self._functions = {tool["function"]["name"]: tool["function"] for tool in tools}
        self.found: set[str] = set()

    def written_out(self, content: Any) -> Any:
        """The content of a tool's result with definitions in place of references."""
        if not isinstance(content, list):
            return content
        rest = [part for part in content if not self._is_reference(part)]
        names = [part["tool_name"] for part in content if self._is_reference(part)]
        if not names:
            return content
        self.found.update(names)
        return [*rest, {"type": "text", "text": definitions_text([self._functions[name] for name in names])}]

    def _is_reference(self, part: Any) -> bool:
        is_one = isinstance(part, dict) and part.get("type") == REFERENCE
        return is_one and isinstance(part.get("tool_name"), str) and part["tool_name"] in self._functions
