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
        self._pieces: OrderedDict[tuple[str, int, int], Future[bytes]] = OrderedDict()

    def read(self, file: str, num_bytes: int, offset: int, run: range | None = None) -> bytes:
        """A part of a file.

        ``run``: the bytes of the file that are read one behind the other (default: all), to which pieces
        ahead are confined; a run that is longer than a piece has pieces of its own.

        Raises:
            CheckpointError: it cannot be fetched.
        """
        if run is None:
            run = range(self._remote.sizes[file])
        begin = run.start if len(run) > self._piece_bytes else 0
        parts = []
        start, stop = offset, offset + num_bytes
        while start < stop:
            place = start - (start - begin) % self._piece_bytes
            end = run.stop if begin else self._remote.sizes[file]
            piece = self._piece(file, place, end)
            for ahead in range(place + self._piece_bytes, run.stop, self._piece_bytes)[:_NUM_AHEAD]:
                self._piece(file, ahead, end)
            parts.append(piece.result()[start - place : stop - place])
            start = place + self._piece_bytes
        return b"".join(parts)

    def close(self) -> None:
        """Stop fetching."""
        self._pool.shutdown(cancel_futures=True)
        self._pieces.clear()

    def _piece(self, file: str, start: int, end: int) -> Future[bytes]:
        key = file, start, min(start + self._piece_bytes, end)
        if key not in self._pieces:
            self._pieces[key] = self._pool.submit(self._remote.fetch, *key)
            while len(self._pieces) > self._num_kept:
                self._pieces.popitem(last=False)[1].cancel()
        self._pieces.move_to_end(key)
        return self._pieces[key]


def one_line(error: Any) -> str:
    """The beginning of what an error says."""
    return " ".join(str(error).split())[:200] or type(error).__name__
