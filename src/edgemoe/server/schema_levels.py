"""How deep a schema leads whoever follows it. llguidance goes down one call per level, through references
too, and has no bound of its own: some thousand levels end the process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

MOST_LEVELS = 1000  # twice as many take less than a thread's usual stack of 8 MiB
_OLD = "draft-04"  # in which addresses have another name


def is_too_deep(schema: Mapping[str, Any]) -> bool:
    """Whether a path through a schema, each definition passed once, may have more than ``MOST_LEVELS``."""
    measure = _Measure(("$id", "$schema", "id") if _OLD in str(schema.get("$schema")) else ("$id", "$schema"))
    whole = measure.root(schema)
    if measure.has_parts:  # what a reference points to depends on where it stands
        return whole * (1 + len(measure.references)) > MOST_LEVELS
    targets = [target for reference in set(measure.references) for target in _targets(schema, reference)]
    return whole + sum(measure.levels.get(id(target), 0) for target in targets) > MOST_LEVELS


class _Measure:
    """Levels of nested values without their references, by the object's id, and the references. Bodies are
    nested 64 deep at most.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        """``addresses``: names of what makes a part a document of its own."""
        self.levels: dict[int, int] = {}
        self.references: list[str] = []
        self.has_parts = False
        self._addresses = addresses

    def root(self, schema: Mapping[str, Any]) -> int:
        """Levels of the whole, whose own address makes no part."""
        whole = 1 + max(map(self._of, schema.values()), default=0)
        self._note(schema)
        self.levels[id(schema)] = whole
        return whole

    def _of(self, value: Any) -> int:
        if not isinstance(value, dict | list):
            return 0
        if isinstance(value, dict):
            self._note(value)
            self.has_parts |= any(isinstance(value.get(name), str) for name in self._addresses)
        inner = value.values() if isinstance(value, dict) else value
        self.levels[id(value)] = 1 + max(map(self._of, inner), default=0)
        return self.levels[id(value)]

    def _note(self, value: Mapping[str, Any]) -> None:
        if isinstance(value.get("$ref"), str):
            self.references.append(value["$ref"])


def _targets(schema: Mapping[str, Any], reference: str) -> Iterator[Any]:
    """What a reference may point to: the whole, where it is no place within the schema as it stands there."""
    fragment = reference.partition("#")[2]
    found = [_at(schema, text) for text in {fragment, unquote(fragment)}]
    yield from [target for target in found if target is not None] or [schema]


def _at(schema: Mapping[str, Any], pointer: str) -> Any:
    """What stands at a JSON pointer; None if nothing does."""
    found: Any = schema
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isdecimal() and len(name) < 6 and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    return found
