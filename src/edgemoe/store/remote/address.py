"""Where a store lies that is not on this machine: ``s3://bucket/store``, ``https://host/store`` and the like.

    address = parse_address("s3://bucket/models/qwen.store")     # None for a folder of this disk
    str(address)                                                 # without a password, for messages

A path that went through ``pathlib`` has lost a slash, as in ``s3:/bucket/store``; that is the same address.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

from edgemoe.errors import RequestError

# What obstore and the Hub's library read; other schemes are left to fsspec, where it is installed.
OBJECT_STORES = ("s3", "gs", "az")
WEB = ("https", "http")
HUB = "hf"
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(/*)(.*)", re.DOTALL)
_HUB_PATH = re.compile(r"(\w[\w.-]*/\w[\w.-]*?)(?:@([\w.-]+))?(?:/(.+))?")


@dataclass(frozen=True, slots=True)
class Address:
    """A folder of objects. ``url`` may hold a password; the text of an address does not."""

    scheme: str
    url: str  # without a slash at its end

    def __str__(self) -> str:
        return re.sub(r"//[^/@]*@", "//", self.url) if self.scheme in WEB else self.url

    @property
    def password(self) -> str | None:
        """``user:password``, where a web address has one."""
        found = re.search(r"//([^/@]*)@", self.url) if self.scheme in WEB else None
        return None if found is None else unquote(found[1])

    def of(self, name: str) -> str:
        """The address of one object in a message."""
        return f"{self}/{name}"


@dataclass(frozen=True, slots=True)
class HubFolder:
    """A folder of a repository on the Hub; ``revision`` is a branch, a tag or a commit."""

    repo: str
    revision: str | None
    folder: str


def parse_address(text: str | Path) -> Address | None:
    """The address that a text is; None where it names something on this disk.

    Raises:
        RequestError: it is meant as one and is none that can be read.
    """
    found = _ADDRESS.fullmatch(str(text))
    if found is None or Path(text).exists():
        return None
    scheme, slashes, rest = found[1].lower(), found[2], found[3].rstrip("/")
    is_known = scheme in (*OBJECT_STORES, *WEB, HUB) or (bool(slashes) and _fsspec_reads(scheme))
    if not slashes and not is_known:
        return None  # a colon in the name of a file
    address = Address(scheme, f"{scheme}://{rest}")
    if not is_known:
        known = ", ".join(f"{name}://" for name in (*OBJECT_STORES, *WEB, HUB))
        raise RequestError(f"{scheme}:// is no place that stores are read from; give one of {known}")
    if not slashes or not rest:
        raise RequestError(f"{text} is no whole address; write it as {_example(scheme)}")
    if scheme in WEB and re.search(r"[?#]", rest):
        raise RequestError(
            f"{str(address).split('?')[0]}: a store is a folder; leave out what follows ? or #"
        )
    if scheme == HUB:
        parse_hub_folder(address)
    return address


def parse_hub_folder(address: Address) -> HubFolder:
    """What of the Hub an ``hf://`` address names.

    Raises:
        RequestError: no repository.
    """
    found = _HUB_PATH.fullmatch(address.url.removeprefix(f"{HUB}://"))
    if found is None:
        raise RequestError(f"{address} names no repository of the Hub; write it as {_example(HUB)}")
    return HubFolder(found[1], found[2], found[3] or "")


def _example(scheme: str) -> str:
    if scheme in WEB:
        return f"{scheme}://host/store"
    if scheme == HUB:
        return "hf://organisation/repository, with @revision and /folder where needed"
    return f"{scheme}://bucket/store"


def _fsspec_reads(scheme: str) -> bool:
    if find_spec("fsspec") is None:
        return False
    from fsspec.registry import known_implementations

    return scheme in known_implementations
