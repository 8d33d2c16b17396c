"""Sampling settings that a model's authors recommend in generation_config.json.

What the caller says comes first, then the file, then what the command or the interface has of its own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgemoe.engine.sampling import Sampling
from edgemoe.errors import RequestError, StoreError
from edgemoe.native import FloatArray

GENERATION_FILE = "generation_config.json"
# Keys of the file that have our names and meaning.
_NAMES = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


@dataclass(frozen=True)
class Suppressed:
    """Tokens that are never drawn, and those that no answer begins with. V: vocabulary."""

    always: tuple[int, ...] = ()
    first: tuple[int, ...] = ()

    def without(self, logits: FloatArray, *, is_first: bool) -> FloatArray:
        """Logits (V,) of the tokens that may be drawn; the same array where all may."""
        ids = [token for token in self.always + (self.first if is_first else ()) if token < len(logits)]
        if not ids:
            return logits
        logits = logits.copy()
        logits[ids] = -np.inf
        return logits


def suppressed_tokens(settings: Mapping[str, Any]) -> Suppressed:
    """What a generation_config.json says of tokens that are not drawn.

    Raises:
        RequestError: it says so in no list of token ids.
    """
    return Suppressed(*(_token_ids(settings, f"{kind}suppress_tokens") for kind in ("", "begin_")))


def _token_ids(settings: Mapping[str, Any], name: str) -> tuple[int, ...]:
    value = settings.get(name)
    if value is None:
        return ()
    is_list = isinstance(value, list) and all(type(token) is int for token in value)
    if not is_list:
        raise RequestError(f"{name} is {value!r:.60}; it must be a list of token ids")
    return tuple(token for token in value if token >= 0)


def read_suppressed(folder: Path) -> Suppressed:
    """``suppressed_tokens`` of a store.

    Raises:
        StoreError: the file cannot be read, or a value is none that can be.
    """
    return suppressed_tokens(_read(folder))


def read_sampling_defaults(folder: Path) -> dict[str, float]:
    """What the file of a store says of drawing tokens; empty if it says nothing, or is not there.

    Raises:
        StoreError: the file cannot be read, or a value is none that can be.
    """
    return sampling_defaults(_read(folder))


def _read(folder: Path) -> Mapping[str, Any]:
    """The file, its values checked; empty if it is not there."""
    path = folder / GENERATION_FILE
    if not path.is_file():
        return {}
    try:
        settings: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
        checked_defaults(settings)
    except (OSError, ValueError, RecursionError) as error:
        what = str(error) if isinstance(error, RequestError) else f"cannot be read: {error}"
        raise StoreError(f"{path}: {what}") from error
    return settings


def checked_defaults(settings: Mapping[str, Any]) -> dict[str, float]:
    """``sampling_defaults``, each a value that can be, and so are the file's suppressed tokens.

    Raises:
        RequestError: one cannot.
    """
    defaults = sampling_defaults(settings)
    Sampling(**defaults)  # type: ignore[arg-type]
    suppressed_tokens(settings)
    return defaults


def sampling_defaults(settings: Mapping[str, Any]) -> dict[str, float]:
    """Arguments of Sampling that a generation_config.json gives.

    ``do_sample`` false means the likeliest token each time; true means a temperature of 1, unless the file
    gives one. Without ``do_sample`` the file's values count as they are.

    Raises:
        RequestError: a value is not a number.
    """
    if not isinstance(settings, Mapping):
        raise RequestError("is not a JSON object")
    found: dict[str, float] = {}
    for name in _NAMES:
        value = settings.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise RequestError(f"{name} is {value!r}; it must be a number")
        found[name] = max(0, int(value)) if name == "top_k" else value  # some write -1 for all
    if settings.get("do_sample") is False:
        found["temperature"] = 0.0
    elif settings.get("do_sample"):
        found.setdefault("temperature", 1.0)
    return found


def choose_sampling(
    given: Mapping[str, Any], own: Mapping[str, float], fallback: Mapping[str, float]
) -> dict[str, Any]:
    """The values that count: those given, then the model's own, then, if it has no temperature, others."""
    return {**({} if "temperature" in own else fallback), **own, **given}


def describe_sampling(options: Mapping[str, Any]) -> str:
    """Values that draw tokens, in words: "temperature 0.6, top_k 20", or "the likeliest token each time"."""
    wanted = {name: options[name] for name in _NAMES if name in options}
    if not wanted.get("temperature"):
        penalty = wanted.get("repetition_penalty", 1.0)
        extra = f", repetition_penalty {penalty:g}" if penalty != 1.0 else ""
        return f"the likeliest token each time{extra}"
    return ", ".join(f"{name} {value:g}" for name, value in wanted.items())
