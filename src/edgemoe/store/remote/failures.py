"""What can go wrong with storage that is far, in one line each, and whether trying again may help.

Messages are ours: those of the libraries run over many lines and may hold addresses with passwords.
"""

from __future__ import annotations

import errno
import re

_STATUS = re.compile(r"(?:status code|error|code)\W+([45]\d\d)\b", re.IGNORECASE)
# Without credentials in the environment the libraries ask the machine that they run on, as it is in a cloud.
_ASKS_MACHINE = re.compile(r"latest/api/token|computeMetadata|169\.254\.169\.254|metadata/identity")
_MOMENTARY = (408, 425, 429)  # and all from 500 on


class RemoteFailure(Exception):
    """A request failed; its text says how. ``is_lasting``: the same request would fail again."""

    def __init__(self, reason: str, *, is_lasting: bool, code: int = errno.EIO) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_lasting = is_lasting
        self.code = code  # an errno

    @property
    def is_missing(self) -> bool:
        """What was asked for does not exist."""
        return self.code == errno.ENOENT


def of_status(status: int) -> RemoteFailure:
    """The failure that a server's answer means."""
    if status in (401, 403):
        return RemoteFailure(
            f"access denied ({status}); check the credentials and what they allow",
            is_lasting=True,
            code=errno.EACCES,
        )
    if status in (404, 410):
        return RemoteFailure(f"not there ({status})", is_lasting=True, code=errno.ENOENT)
    if status == 412:
        return RemoteFailure("replaced meanwhile (412)", is_lasting=True, code=errno.ESTALE)
    if status == 416:
        return RemoteFailure("unexpected end of file (416)", is_lasting=True)
    is_momentary = status >= 500 or status in _MOMENTARY
    return RemoteFailure(f"the server answered {status}", is_lasting=not is_momentary)


def of_error(error: BaseException) -> RemoteFailure:
    """What an exception of a library means, by its kind and, where the kind says nothing, by its text."""
    if isinstance(error, RemoteFailure):
        return error
    text = str(error)
    if "NoSuchBucket" in text or "specified bucket does not exist" in text:
        return RemoteFailure("there is no such bucket", is_lasting=True, code=errno.ENOENT)
    if "incorrectly configured region" in text:
        return RemoteFailure("the bucket lies in another region; set AWS_REGION", is_lasting=True)
    if _ASKS_MACHINE.search(text):
        return RemoteFailure(f"no credentials; {_credentials_of(text)}", is_lasting=True, code=errno.EACCES)
    kinds = {kind.__name__ for kind in type(error).__mro__}
    by_kind = {
        "FileNotFoundError": 404,
        "NotFoundError": 404,
        "PermissionDeniedError": 403,
        "PermissionError": 403,
        "UnauthenticatedError": 401,
        "PreconditionError": 412,
    }
    for kind, status in by_kind.items():
        if kind in kinds:
            return of_status(status)
    if "NotSupportedError" in kinds:
        return RemoteFailure("the server does not give parts of files (ranges)", is_lasting=True)
    status_said = _STATUS.search(text)
    if status_said is not None:
        return of_status(int(status_said[1]))
    if "timed out" in text or "Timeout" in text or kinds & {"TimeoutError", "TimeoutException"}:
        return RemoteFailure("no answer in time; check the network", is_lasting=False, code=errno.ETIMEDOUT)
    return RemoteFailure("no connection, or it broke off; check the network", is_lasting=False)


def _credentials_of(text: str) -> str:
    """Which to set for the storage that an error is of."""
    if "GCS" in text:
        return "set GOOGLE_APPLICATION_CREDENTIALS, or GOOGLE_SKIP_SIGNATURE=true for a public bucket"
    if "Azure" in text:
        return "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"
    return "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket"
