"""Errors of the tokenizers library as one line of ours."""

from __future__ import annotations


class OneLineErrors:
    """The tokenizers library raises bare Exception, and panics that are not even that: here they become
    ``kind``. A class, as every token of an answer passes through it.
    """

    def __init__(self, kind: type[Exception], what: str) -> None:
        self._kind, self._what = kind, what

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None or isinstance(error, self._kind):
            return
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise self._kind(f"{self._what}: {' '.join(str(error).split())[:200]}") from error
