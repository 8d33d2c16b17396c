"""Puts generated tables into documents, between the marks that stand for them there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path


def replace_between(document: Path, name: str, lines: Sequence[str]) -> None:
    """Replace what stands between ``<!-- name -->`` and ``<!-- end of name -->``."""
    marks = re.compile(rf"(<!-- {name} -->\n).*(<!-- end of {name} -->)", re.DOTALL)
    text = document.read_text()
    if not marks.search(text):
        raise SystemExit(f"{document} has no marks <!-- {name} --> and <!-- end of {name} -->")
    table = "\n".join(lines)
    document.write_text(marks.sub(lambda found: f"{found[1]}{table}\n{found[2]}", text))
