"""How deep a schema leads whoever follows it. llguidance goes down one call per level, through references
too, and has no bound of its own: some thousand levels end the process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MOST_LEVELS = 1000  # twice as many take less than a thread's usual stack of 8 MiB


def is_too_deep(schema: Mapping[str, Any]) -> bool:
    """Whether a path through a schema, each definition passed once, may have more than ``MOST_LEVELS``."""
    levels: dict[int, int] = {}  # of nested values, by their object's id
    references: set[str] = set()
    _measure(schema, levels, references)
    targets = [target for reference in references for target in _targets(schema, reference)]
    return levels[id(schema)] + sum(levels.get(id(target), 0) for target in targets) > MOST_LEVELS


def _measure(value: Any, levels: dict[int, int], references: set[str]) -> int:
    """Levels of a value without its references; bodies are nested 64 deep at most."""
    if not isinstance(value, dict | list):
        return 0
    if isinstance(value, dict) and isinstance(value.get("$ref"), str):
        references.add(value["$ref"])
    inner = value.values() if isinstance(value, dict) else value
    levels[id(value)] = 1 + max((_measure(each, levels, references) for each in inner), default=0)
    return levels[id(value)]


def _targets(schema: Mapping[str, Any], reference: str) -> Iterator[Any]:
    """What a reference points to, if it is a place within the schema."""
    found: Any = schema
    for step in reference.removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isdecimal() and len(name) < 6 and int(name) < len(found):
            found = found[int(name)]
        else:
            return
    yield found
