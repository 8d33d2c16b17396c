"""The user's folders for data and caches, where the system says they are."""

from __future__ import annotations

from pathlib import Path

from edgemoe.errors import RequestError

CACHE_VARIABLE = "XDG_CACHE_HOME"  # says where the folder of caches is


def user_data() -> Path:
    """Where this user's stores are kept; it need not exist.

    Raises:
        RequestError: the system does not know the user's home.
    """
    from platformdirs import user_data_path

    try:
        return user_data_path("edgemoe")
    except RuntimeError:
        raise _homeless("stores", "XDG_DATA_HOME") from None


def user_cache() -> Path:
    """Where this user keeps what can be made again; it need not exist.

    Raises:
        RequestError: the system does not know the user's home.
    """
    from platformdirs import user_cache_path

    try:
        return user_cache_path("edgemoe")
    except RuntimeError:
        raise _homeless("what is prepared of a model", CACHE_VARIABLE) from None


def _homeless(what: str, variable: str) -> RequestError:
    return RequestError(f"no place for {what}: this user has no home; set HOME or {variable} to a folder")
