"""Objects by obstore (``s3://``, ``gs://``, ``az://``, ``https://``), compiled, so that others compute on.

Credentials and endpoints are those of its usual environment, such as ``AWS_ACCESS_KEY_ID``,
``AWS_ENDPOINT_URL`` and ``GOOGLE_APPLICATION_CREDENTIALS``.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from edgemoe.errors import RequestError
from edgemoe.store.remote.address import WEB, Address
from edgemoe.store.remote.failures import of_error
from edgemoe.store.remote.objects import Received

if TYPE_CHECKING:
    from obstore import GetOptions

_CONNECT_TIMEOUT = "10s"
_REQUEST_TIMEOUT = "60s"  # of one range, which is a few MiB: slower links than this cannot run a model


class ObstoreObjects:
    """See Objects."""

    def __init__(self, address: Address) -> None:
        from obstore import store as stores

        # Tries again, and how often, is decided in one place: files.py.
        options: dict[str, Any] = {
            "client_options": {
                "allow_http": True,
                "connect_timeout": _CONNECT_TIMEOUT,
                "timeout": _REQUEST_TIMEOUT,
            },
            "retry_config": {"max_retries": 0},
        }
        try:
            if address.scheme in WEB:
                if address.password is not None:
                    coded = base64.b64encode(address.password.encode()).decode("ascii")
                    options["client_options"]["default_headers"] = {"authorization": f"Basic {coded}"}
                self._store: Any = stores.HTTPStore.from_url(str(address), **options)
            else:
                self._store = stores.from_url(address.url, **options)
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise RequestError(f"{address} cannot be opened: {reason}") from None

    async def read(self, name: str, start: int, stop: int) -> Received:
        """See Objects."""
        return await self._get(name, {"range": (start, stop)})

    async def get(self, name: str, known: str | None = None) -> Received | None:
        """See Objects."""
        from obstore.exceptions import NotModifiedError

        try:
            received = await self._get(name, {} if known is None else {"if_none_match": known})
        except NotModifiedError:
            return None
        return None if known is not None and received.version == known else received

    async def _get(self, name: str, options: GetOptions) -> Received:
        import obstore
        from obstore.exceptions import NotModifiedError

        try:
            result = await obstore.get_async(self._store, name, options=options)
            return Received(await result.bytes_async(), result.meta["e_tag"])
        except NotModifiedError:
            raise
        except Exception as error:
            raise of_error(error) from error
