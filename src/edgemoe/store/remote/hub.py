"""Stores in a repository of the Hugging Face Hub, read by range from where the Hub says that a file lies.

Tokens, mirrors (``HF_ENDPOINT``) and proxies are those of huggingface_hub. The revision is resolved once, so
that all files are of one commit. The Hub answers with an address that holds for a while; it is asked again
when that has ended.
"""

from __future__ import annotations

import asyncio
from typing import Any

from edgemoe.store.remote import network
from edgemoe.store.remote.address import Address, parse_hub_folder
from edgemoe.store.remote.failures import RemoteFailure, of_error, of_status
from edgemoe.store.remote.objects import Received

_TIMEOUT_S = 60.0


class HubObjects:
    """See Objects."""

    def __init__(self, address: Address) -> None:
        self._place = parse_hub_folder(address)
        self._commit: str | None = None
        self._locations: dict[str, tuple[str, str | None]] = {}  # file -> where it lies, its version
        self._opening = asyncio.Lock()

    async def read(self, name: str, start: int, stop: int) -> Received:
        """See Objects."""
        for is_again in (False, True):
            location, version = await self._locate(name, asks_again=is_again)
            client, headers = self._connect(location)
            try:
                headers["Range"] = f"bytes={start}-{stop - 1}"
                answer = await client.get(location, headers=headers, follow_redirects=True)
            except Exception as error:
                raise of_error(error) from error
            # A signed address has come to its end.
            if answer.status_code in (401, 403) and not is_again:
                continue
            if answer.status_code >= 300:
                raise of_status(answer.status_code)
            data = answer.content
            return Received(data if answer.status_code == 206 else data[start:stop], version)
        raise AssertionError("the second try returns or raises")

    async def get(self, name: str, known: str | None = None) -> Received | None:
        """See Objects."""
        location, version = await self._locate(name)
        if known is not None and version == known:
            return None
        client, headers = self._connect(location)
        try:
            answer = await client.get(location, headers=headers, follow_redirects=True)
        except Exception as error:
            raise of_error(error) from error
        if answer.status_code >= 300:
            raise of_status(answer.status_code)
        return Received(answer.content, version)

    async def _locate(self, name: str, asks_again: bool = False) -> tuple[str, str | None]:
        import huggingface_hub as hub

        path = f"{self._place.folder}/{name}" if self._place.folder else name
        async with self._opening:
            if self._commit is None:
                self._commit = await _in_thread(self._resolve)
            if name not in self._locations or asks_again:
                url = hub.hf_hub_url(self._place.repo, path, revision=self._commit)
                found = await _in_thread(lambda: hub.get_hf_file_metadata(url))
                self._locations[name] = (found.location, found.etag)
            return self._locations[name]

    def _resolve(self) -> str:
        import huggingface_hub as hub

        return str(hub.HfApi().model_info(self._place.repo, revision=self._place.revision).sha)

    def _connect(self, location: str) -> tuple[Any, dict[str, str]]:
        """A client, and headers: the token goes to the Hub alone, not to where it sends us."""
        import huggingface_hub as hub
        from huggingface_hub import constants
        from huggingface_hub.utils._headers import build_hf_headers

        client = network.keep("hub", hub.get_async_session, lambda client: client.aclose())
        is_hub = location.startswith(constants.ENDPOINT)
        return client, build_hf_headers() if is_hub else {}


async def _in_thread(function: Any) -> Any:
    """A blocking call of the Hub's library; its errors as ours."""
    try:
        return await asyncio.wait_for(asyncio.to_thread(function), _TIMEOUT_S)
    except Exception as error:
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if "GatedRepoError" in kinds:
            reason = "the repository is gated: accept its licence on its page, then run `hf auth login`"
        elif "RepositoryNotFoundError" in kinds:
            reason = "there is no such repository, or it is private: check the name, or run `hf auth login`"
        elif "RevisionNotFoundError" in kinds:
            reason = "the repository has no such revision"
        elif kinds & {"EntryNotFoundError", "RemoteEntryNotFoundError"}:
            raise of_status(404) from error
        elif "OfflineModeIsEnabled" in kinds:
            reason = "nothing is fetched while HF_HUB_OFFLINE is set"
        else:
            raise of_error(error) from error
        raise RemoteFailure(reason, is_lasting=True) from error
