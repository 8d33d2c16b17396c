"""Reads a configuration so that nothing in it is accepted and ignored.

Every key is required, optional, refused unless it has the one value we run, or known to have no effect
on inference (``config_keys``). A key that nobody has read is an error that names it, and a value that is not
of its kind or beyond every model is one that names both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from edgemoe.errors import UnsupportedModelError
from edgemoe.models.config_keys import IGNORED, MEANT_BY_NULL, MOST, MOST_OF_ANYTHING, NEUTRAL, SAMPLING

_SHOWN_CHARACTERS = 60  # of a value that a message quotes
_LARGEST_NUMBER = 1e30  # below it squares of single precision are finite, beyond it nothing was ever trained
_EMPTY: tuple[Any, ...] = (None, False, [], {}, "")


class ConfigReader:
    """A configuration being read; ``finish`` refuses keys that nobody has read."""

    def __init__(self, config: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> None:
        """``defaults``: values of missing keys; they go before the default that a caller gives."""
        self._config = config
        self._defaults = dict(defaults or {})
        self._read: set[str] = set()

    def has(self, key: str) -> bool:
        """Whether a key is there, be it null."""
        return key in self._config

    def stand_in(self, other: str, key: str) -> None:
        """Read ``other`` for ``key`` where a configuration has the former alone."""
        if other in self._config and key not in self._config:
            self._config = {**self._config, key: self._config[other]}

    def optional(self, key: str, default: Any, *aliases: str) -> Any:
        """The value of the first of these keys that is there and not null, else ``default``.

        Raises:
            UnsupportedModelError: two of them are there, with different values.
        """
        self._read.update((key, *aliases))
        found = [name for name in (key, *aliases) if self._config.get(name) is not None]
        for name in found[1:]:
            if self._config[name] != self._config[found[0]]:
                raise UnsupportedModelError(
                    f"config.json: {found[0]} is {shown(self._config[found[0]])} and {name} is"
                    f" {shown(self._config[name])}, which mean the same; take away the wrong one"
                )
        if found:
            return self._config[found[0]]
        if key not in self._config and self._defaults.get(key) is not None:
            return self._defaults[key]
        return default

    def require(self, key: str, *aliases: str) -> Any:
        """The value of a key that must be there.

        Raises:
            UnsupportedModelError: it is not.
        """
        value = self.optional(key, None, *aliases)
        if value is None:
            raise UnsupportedModelError(f"config.json: {key} is missing")
        return value

    def require_size(self, key: str, *aliases: str) -> int:
        """A positive integer that must be there.

        Raises:
            UnsupportedModelError: it is not there, or is no such number.
        """
        return check_size(key, self.require(key, *aliases))

    def size(self, key: str, default: int, *aliases: str, at_least: int = 1) -> int:
        """An integer, ``default`` where none is given.

        Raises:
            UnsupportedModelError: it is none, or less than ``at_least``.
        """
        return check_size(key, self.optional(key, default, *aliases), at_least)

    def number(self, key: str, default: float, *aliases: str) -> float:
        """A finite number, ``default`` where none is given.

        Raises:
            UnsupportedModelError: it is none.
        """
        return check_number(key, self.optional(key, default, *aliases))

    def flag(self, key: str, default: bool, *aliases: str) -> bool:
        """True or false, ``default`` where neither is given; null may stand for false, but not for true.

        Raises:
            UnsupportedModelError: it is neither.
        """
        value = self.optional(key, default, *aliases)
        given = [name for name in (key, *aliases) if name in self._config]
        if value is True and given and all(self._config[name] is None for name in given):
            raise UnsupportedModelError(f"config.json: {given[0]} is None, not true or false")
        if not isinstance(value, bool):
            raise UnsupportedModelError(f"config.json: {key} is {shown(value)}, not true or false")
        return value

    def sizes(self, key: str, default: Iterable[int] = ()) -> list[int]:
        """A list of integers from 0 on.

        Raises:
            UnsupportedModelError: it is none.
        """
        values = self.optional(key, list(default))
        if not isinstance(values, list):
            raise UnsupportedModelError(f"config.json: {key} is {shown(values)}, not a list")
        return [check_size(f"{key}[{i}]", value, at_least=0) for i, value in enumerate(values)]

    def names(self, key: str, default: Iterable[str] = ()) -> list[str]:
        """A list of words.

        Raises:
            UnsupportedModelError: it is none.
        """
        values = self.optional(key, list(default))
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise UnsupportedModelError(f"config.json: {key} is {shown(values)}, not a list of words")
        return values

    def table(self, key: str) -> dict[str, Any]:
        """A JSON object; empty where none is given.

        Raises:
            UnsupportedModelError: it is none.
        """
        value = self.optional(key, {})
        if not isinstance(value, dict):
            raise UnsupportedModelError(f"config.json: {key} is {shown(value)}, not a table of settings")
        return dict(value)

    def refuse(self, key: str, unless: Iterable[Any], why: str) -> None:
        """Refuse a key whose value is there and not one of ``unless``.

        Raises:
            UnsupportedModelError: naming the key, its value and why.
        """
        value = self.optional(key, None)
        if value is not None and value not in tuple(unless):
            raise UnsupportedModelError(f"config.json: {key} = {shown(value)} is not supported: {why}")

    def finish(self) -> None:
        """Complain of keys that nobody has read.

        Raises:
            UnsupportedModelError: naming them.
        """
        left = [key for key in sorted(self._config) if key not in self._read and not self._is_harmless(key)]
        if left:
            what = ", ".join(f"{key} = {shown(self._config[key])}" for key in left)
            raise UnsupportedModelError(
                f"config.json: {self._config.get('model_type')} is not known to have {what};"
                " running without it could give wrong text"
            )

    def _is_harmless(self, key: str) -> bool:
        value = self._config[key]
        if key in IGNORED or key in SAMPLING or key.startswith("_"):
            return True
        if value is None:
            return key not in MEANT_BY_NULL
        if key in ("sliding_window", "use_sliding_window") and not _has_window(self._config):
            return True
        if key == "layer_types" and isinstance(value, list):
            return all(kind == "full_attention" for kind in value)
        return value in NEUTRAL.get(key, _EMPTY)


def _has_window(config: Mapping[str, Any]) -> bool:
    """Whether a configuration both has a window and does not say that it is unused."""
    return bool(config.get("sliding_window")) and config.get("use_sliding_window") is not False


def check_size(key: str, value: Any, at_least: int = 1) -> int:
    """The value, which must be an integer that a model can have.

    Raises:
        UnsupportedModelError: it is none, or beyond any model.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        kind = "a positive integer" if at_least == 1 else f"an integer from {at_least} on"
        raise UnsupportedModelError(f"config.json: {key} is {shown(value)}, not {kind}")
    most = MOST.get(key, MOST_OF_ANYTHING)
    if value > most:
        raise UnsupportedModelError(f"config.json: {key} is {shown(value)}; no model has more than {most}")
    return value


def check_number(key: str, value: Any) -> float:
    """The value, which must be a finite number.

    Raises:
        UnsupportedModelError: it is none.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) <= _LARGEST_NUMBER:
        raise UnsupportedModelError(f"config.json: {key} is {shown(value)}, not a number that can be run")
    return float(value)


def shown(value: Any) -> str:
    """A value as a message quotes it: short, whatever it is."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**30:
        return "a number of more than 30 digits"
    if isinstance(value, list | dict) and len(value) > _SHOWN_CHARACTERS:
        return f"a {type(value).__name__} of {len(value)} entries"
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
