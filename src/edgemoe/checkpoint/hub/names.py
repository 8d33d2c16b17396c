"""What models on the Hub are called: ``organisation/model``, ``organisation/model@revision``, and
``organisation/model:file.gguf`` or ``organisation/model:Q4_K_M`` for one of its GGUF files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from edgemoe.checkpoint.gguf import is_model_name, model_name, names_of_parts
from edgemoe.errors import CheckpointError

_NAME = re.compile(r"(?:hf://)?(\w[\w.-]*/\w[\w.-]*?)(?:@([\w./-]+?))?(?::([\w./ -]+))?")
_GGUF = ".gguf"
_MOST_SHOWN = 4


@dataclass(frozen=True, slots=True)
class HubName:
    """A model on the Hub; ``revision`` is a branch, a tag or a commit.

    ``file``: one of its GGUF files, any part of a split one, or the word in its name that says how it is
    quantised, such as Q4_K_M.
    """

    repo: str
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{self.revision}"
        return self.repo + revision + ("" if self.file is None else f":{self.file}")

    @property
    def has_whole_file(self) -> bool:
        """Whether the file's whole name is known, or none is named."""
        return self.file is None or self.file.lower().endswith(_GGUF)


def parse_hub_name(text: str | Path) -> HubName | None:
    """The model that a text names; None where it is the name of something on this disk, or no such name."""
    found = _NAME.fullmatch(str(text))
    is_file = Path(text).suffix == _GGUF and ":" not in str(text)
    if found is None or is_file or Path(text).exists():
        return None
    return HubName(*found.groups())


def find_file(name: HubName, files: Iterable[str]) -> HubName:
    """The name with the whole name of its GGUF file, which is one of a repository's files.

    Raises:
        CheckpointError: there is none, or more than one.
    """
    if name.has_whole_file:
        return name
    models = gguf_models(files)
    word = rf"(.*[-._/])?{re.escape(str(name.file))}"
    for pattern in (word, rf"{word}[-._/].*"):  # Q4_K is not Q4_K_M where there are both
        matches = re.compile(pattern, re.IGNORECASE)
        found = [model for model in models if matches.fullmatch(model_name(model))]
        if found:
            break
    if len(found) == 1:
        return replace(name, file=found[0])
    if not found:
        there = f"it holds {shown(models)}" if models else "it holds no GGUF files"
        raise CheckpointError(f"{name}: has no GGUF file of that name; {there}")
    raise CheckpointError(
        f"{name}: has {len(found)} such GGUF files ({shown(found)}); name one, as {name.repo}:{found[0]}"
    )


def gguf_models(files: Iterable[str]) -> list[str]:
    """The models as GGUF among a repository's files, each by its first file."""
    return sorted({names_of_parts(file)[0] for file in files if is_model_name(file)})


def shown(files: list[str]) -> str:
    """The first of some files, and how many more there are."""
    more = f" and {len(files) - _MOST_SHOWN} more" if len(files) > _MOST_SHOWN else ""
    return ", ".join(files[:_MOST_SHOWN]) + more
