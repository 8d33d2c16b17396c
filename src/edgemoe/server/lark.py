"""Texts as llguidance's Lark writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

_PARTS = re.compile(r"( |\n|\{name\}|\{id\})")
_LOOSE = {" ": '" "?', "\n": '"\\n"?', "{id}": "/[A-Za-z0-9]{1,64}/"}


def quoted(text: str) -> str:
    """A text that has no special tokens in it."""
    return json.dumps(text, ensure_ascii=False)


def literals(text: str, special_ids: Mapping[str, int]) -> str:
    """A text, special tokens by their numbers."""
    return " ".join(_shown(text, special_ids))


def spaced(text: str, name: str, special_ids: Mapping[str, int]) -> str:
    """A text with a name in it, whose spaces and newlines may be left out; ``{id}`` stands for a call's."""
    out, solid = [], ""
    for part in _PARTS.split(text):
        if part not in _LOOSE:
            solid += name if part == "{name}" else part
            continue
        out += [literals(solid, special_ids), _LOOSE[part]]
        solid = ""
    return " ".join(part for part in [*out, literals(solid, special_ids)] if part)


def text_before(end: str, special_ids: Mapping[str, int], name: str) -> list[str] | None:
    """Rules of any text and the end behind it, under a name. None if a special token stands within the end:
    no grammar can say how far the text goes.
    """
    parts = list(_shown(end, special_ids))
    if parts == [quoted(end)]:
        return [f"{name}[suffix={parts[0]}]: /(?s:.*)/"]
    if parts[0].startswith("<["):
        return [f"{name}: /(?s:.*)/ {' '.join(parts)}"]
    return None


def _shown(text: str, special_ids: Mapping[str, int]) -> Iterator[str]:
    marks = sorted((mark for mark in special_ids if mark and mark in text), key=len, reverse=True)
    parts = re.split("(" + "|".join(map(re.escape, marks)) + ")", text) if marks else [text]
    for part in parts:
        if part in special_ids:
            yield f"<[{special_ids[part]}]>"
        elif part:
            yield quoted(part)


def of_regex(pattern: str) -> str:
    """A grammar of the texts that a regular expression matches from end to end."""
    whole = re.sub(r"\A\^|(?<!\\)\$\Z", "", pattern)
    escaped = re.sub(r"\\.|/|\n", _escaped, whole, flags=re.DOTALL)
    return f"start: TEXT\nTEXT: /{escaped}/\n"


def _escaped(found: re.Match[str]) -> str:
    return {"/": "\\/", "\n": "\\n"}.get(found[0], found[0])


_TEXTS = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|#[^\n]*|/(?:\\.|[^/\\\n])+/')


# Rules and brackets, of which llguidance goes down through each: several thousand end the process.
_MOST_LEVELS = 2000


def foreign_part(grammar: str) -> str:
    """What of a client's grammar is no grammar of texts, or more than can be taken; "" if nothing is."""
    bare = _TEXTS.sub("", grammar)
    if "<" in bare:
        return "special tokens stand in no text"
    if unknown := re.search(r"%(?!import\b|ignore\b)\w*", bare):
        return f"{unknown[0]} is not known"
    levels = sum(map(bare.count, ":(["))
    return f"it has {levels} rules and brackets; at most {_MOST_LEVELS}" if levels > _MOST_LEVELS else ""
