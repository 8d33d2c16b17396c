"""What names of GGUF files say: whether one is of a model, and which files belong together."""

from __future__ import annotations

import re

_SUFFIX = ".gguf"
_SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)
_NO_MODEL = re.compile(r".*(mmproj|imatrix).*", re.IGNORECASE)


def is_model_name(name: str) -> bool:
    """Whether a file of that name may be a model: towers and measurements lie beside models as GGUF, too."""
    return name.lower().endswith(_SUFFIX) and _NO_MODEL.fullmatch(name) is None


def names_of_parts(name: str) -> list[str]:
    """The files of a model that is split, by the name of any of them; the name itself where none is."""
    match = _SPLIT.fullmatch(name)
    if match is None:
        return [name]
    count, suffix = int(match[3]), name[-len(_SUFFIX) :]
    return [f"{match[1]}-{i:05d}-of-{count:05d}{suffix}" for i in range(1, count + 1)]


def model_name(name: str) -> str:
    """A model's file name without its ending and without the numbers that the files of a split one have."""
    match = _SPLIT.fullmatch(name)
    return name[: -len(_SUFFIX)] if match is None else match[1]
