"""Files of one commit of a model on the Hub, read in pieces."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from edgemoe.errors import CheckpointError

_NUM_AHEAD = 2


class Remote:
    """The files of one commit of a model; ``sizes`` in bytes by their names."""

    def __init__(self, repo: str, commit: str, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes
        self.repo = repo
        self.commit = commit

    def fetch(self, file: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of a file; what fails for a moment is tried again.

        Raises:
            CheckpointError: it cannot be fetched.
        """
        import huggingface_hub as hub
        from huggingface_hub.utils._headers import build_hf_headers
        from huggingface_hub.utils._http import http_backoff

        url = hub.hf_hub_url(self.repo, file, revision=self.commit)
        headers = {**build_hf_headers(), "Range": f"bytes={start}-{stop - 1}"}
        try:
            response = http_backoff("GET", url, headers=headers, follow_redirects=True)
            response.raise_for_status()
            data = bytes(response.content)
        except Exception as error:
            raise CheckpointError(
                f"{self.repo}: {file} cannot be fetched: {one_line(error)}; the same command goes on later"
            ) from error
        if response.status_code == 200 and len(data) > stop - start:  # a server without ranges
            data = data[start:stop]
        if len(data) != stop - start:
            raise CheckpointError(f"{self.repo}: {file} ended early; the same command goes on later")
        return data


class Pieces:
    """Reads of files in pieces of one size: the last ones are kept, the next ones are fetched meanwhile.

    ``num_kept`` pieces are held at a time: of each place that is read by turns the present one and those
    ahead.
    """

    def __init__(self, remote: Remote, piece_bytes: int, num_kept: int) -> None:
        self._remote = remote
        self._piece_bytes, self._num_kept = piece_bytes, num_kept
        self._pool = ThreadPoolExecutor(_NUM_AHEAD + 1, thread_name_prefix="edgemoe-hub")
        self._pieces: OrderedDict[tuple[str, int], Future[bytes]] = OrderedDict()

    def read(self, file: str, num_bytes: int, offset: int) -> bytes:
        """A part of a file.

        Raises:
            CheckpointError: it cannot be fetched.
        """
        size = self._piece_bytes
        first, last = offset // size, (offset + num_bytes - 1) // size
        parts = []
        for index in range(first, last + 1):
            piece = self._piece(file, index)
            for ahead in range(index + 1, index + 1 + _NUM_AHEAD):
                if ahead * size < self._remote.sizes[file]:
                    self._piece(file, ahead)
            start = max(0, offset - index * size)
            parts.append(piece.result()[start : offset + num_bytes - index * size])
        return b"".join(parts)

    def close(self) -> None:
        """Stop fetching."""
        self._pool.shutdown(cancel_futures=True)
        self._pieces.clear()

    def _piece(self, file: str, index: int) -> Future[bytes]:
        key = file, index
        if key not in self._pieces:
            start = index * self._piece_bytes
            stop = min(start + self._piece_bytes, self._remote.sizes[file])
            self._pieces[key] = self._pool.submit(self._remote.fetch, file, start, stop)
            while len(self._pieces) > self._num_kept:
                self._pieces.popitem(last=False)[1].cancel()
        self._pieces.move_to_end(key)
        return self._pieces[key]


def one_line(error: Any) -> str:
    """The beginning of what an error says."""
    return " ".join(str(error).split())[:200] or type(error).__name__
