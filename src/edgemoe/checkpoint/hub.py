"""Checkpoints on the Hugging Face Hub, read piece by piece: what is packed is never on disk as a whole.

``open_hub`` fetches the configuration, the tokenizer and the headers of the weight files. Their tensors are
fetched when they are read, in pieces that follow each other, the next one ahead. So a conversion needs room
for the store alone, and memory for a few pieces.

Names are ``organisation/model``, ``organisation/model@revision`` and ``organisation/model:file.gguf``.
Tokens, mirrors (``HF_ENDPOINT``) and offline mode are those of the library huggingface_hub.
"""

from __future__ import annotations

import re
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemoe.checkpoint.folder import FolderCheckpoint
from edgemoe.checkpoint.gguf import GgufCheckpoint, names_of_parts
from edgemoe.checkpoint.source import CheckpointSource
from edgemoe.errors import CheckpointError
from edgemoe.units import MIB
from edgemoe.user_folders import user_cache

_NAME = re.compile(r"(?:hf://)?(\w[\w.-]*/\w[\w.-]*?)(?:@([\w./-]+?))?(?::([\w./ -]+))?")
_PIECE_BYTES = 8 * MIB  # large enough for a connection to reach its speed, small beside any budget
_NUM_PIECES = 6  # held at a time: the present one, those fetched ahead, and what two readers left
_NUM_AHEAD = 2
_FIRST_HEADER_BYTES = MIB
_MOST_HEADER_BYTES = 100 * MIB  # what the safetensors library accepts
# Beside the weights: what the reader of a folder looks at. Larger files are none of these.
_SIDE = re.compile(r"[^/]+\.(json|jinja|txt|model)|additional_chat_templates/[^/]+\.jinja")
# Weights that are read where they are; adapters, and those of folders below, are none.
_WEIGHTS = re.compile(r"model[^/]*\.safetensors")
_MOST_SIDE_BYTES = 64 * MIB


@dataclass(frozen=True, slots=True)
class HubName:
    """A model on the Hub; ``revision`` is a branch, a tag or a commit."""

    repo: str
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{self.revision}"
        return self.repo + revision + ("" if self.file is None else f":{self.file}")


def parse_hub_name(text: str | Path) -> HubName | None:
    """The model that a text names; None where it is the name of something on this disk, or no such name."""
    found = _NAME.fullmatch(str(text))
    is_file = Path(text).suffix == ".gguf" and ":" not in str(text)
    if found is None or is_file or Path(text).exists():
        return None
    return HubName(*found.groups())


def open_hub(name: HubName, cache: Path | None = None) -> CheckpointSource:
    """Open a model of the Hub; ``cache`` holds its small files (default: the user's cache folder).

    A whole copy in the Hub's own cache is used as it is.

    Raises:
        CheckpointError: there is no such model, it is not public, or it cannot be reached.
    """
    try:
        return _open(name, cache)
    except (CheckpointError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise _described(name, error) from error


def _open(name: HubName, cache: Path | None) -> CheckpointSource:
    import huggingface_hub as hub
    from huggingface_hub import constants

    if name.file is not None:
        parts = names_of_parts(name.file)
        paths = [Path(hub.hf_hub_download(name.repo, part, revision=name.revision)) for part in parts]
        return GgufCheckpoint(paths[0])
    if constants.HF_HUB_OFFLINE:
        return FolderCheckpoint(
            Path(hub.snapshot_download(name.repo, revision=name.revision, local_files_only=True))
        )
    info = hub.HfApi().model_info(name.repo, revision=name.revision, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    _refuse_gguf_alone(name, sizes)
    if not any(_WEIGHTS.fullmatch(file) for file in sizes):
        # Files of torch are archives that are read in any order.
        return FolderCheckpoint(Path(hub.snapshot_download(name.repo, revision=info.sha)))
    local = hub.try_to_load_from_cache(name.repo, "config.json", revision=info.sha)
    if isinstance(local, str) and _is_whole(Path(local).parent, sizes):
        return FolderCheckpoint(Path(local).parent)
    commit = str(info.sha)
    folder = (cache or _cache_folder()) / f"{name.repo.replace('/', '--')}@{commit[:12]}"
    remote = _Remote(name.repo, commit, sizes)
    _make_skeleton(folder, remote)
    return HubCheckpoint(folder, remote)


class HubCheckpoint(FolderCheckpoint):
    """A folder whose weight files hold their headers alone; tensors are fetched when they are read."""

    def __init__(self, folder: Path, remote: _Remote) -> None:
        super().__init__(folder)
        self._root = folder
        self._pieces = _Pieces(remote.fetch, remote.sizes)

    @property
    def num_bytes(self) -> int:
        """What all tensors take on the Hub."""
        return sum(info.num_bytes for info in self.tensors().values())

    def close(self) -> None:
        """Stop fetching."""
        self._pieces.close()
        super().close()

    def _read_raw(self, path: Path, num_bytes: int, offset: int) -> bytes:
        return self._pieces.read(path.relative_to(self._root).as_posix(), num_bytes, offset)


class _Remote:
    """The files of one commit of a model."""

    def __init__(self, repo: str, commit: str, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes
        self._repo = repo
        self._commit = commit

    def fetch(self, file: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of a file; what fails for a moment is tried again.

        Raises:
            CheckpointError: it cannot be fetched.
        """
        import huggingface_hub as hub
        from huggingface_hub.utils._headers import build_hf_headers
        from huggingface_hub.utils._http import http_backoff

        url = hub.hf_hub_url(self._repo, file, revision=self._commit)
        headers = {**build_hf_headers(), "Range": f"bytes={start}-{stop - 1}"}
        try:
            response = http_backoff("GET", url, headers=headers, follow_redirects=True)
            response.raise_for_status()
            data = bytes(response.content)
        except Exception as error:
            raise CheckpointError(
                f"{self._repo}: {file} cannot be fetched: {_one_line(error)}; the same command goes on later"
            ) from error
        if response.status_code == 200 and len(data) > stop - start:  # a server without ranges
            data = data[start:stop]
        if len(data) != stop - start:
            raise CheckpointError(f"{self._repo}: {file} ended early; the same command goes on later")
        return data


class _Pieces:
    """Reads of files in pieces of one size: the last ones are kept, the next ones are fetched meanwhile."""

    def __init__(self, fetch: Callable[[str, int, int], bytes], sizes: Mapping[str, int]) -> None:
        self._fetch = fetch
        self._sizes = sizes
        self._pool = ThreadPoolExecutor(_NUM_AHEAD + 1, thread_name_prefix="edgemoe-hub")
        self._pieces: OrderedDict[tuple[str, int], Future[bytes]] = OrderedDict()

    def read(self, file: str, num_bytes: int, offset: int) -> bytes:
        first, last = offset // _PIECE_BYTES, (offset + num_bytes - 1) // _PIECE_BYTES
        parts = []
        for index in range(first, last + 1):
            piece = self._piece(file, index)
            for ahead in range(index + 1, index + 1 + _NUM_AHEAD):
                if ahead * _PIECE_BYTES < self._sizes[file]:
                    self._piece(file, ahead)
            start = max(0, offset - index * _PIECE_BYTES)
            parts.append(piece.result()[start : offset + num_bytes - index * _PIECE_BYTES])
        return b"".join(parts)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._pieces.clear()

    def _piece(self, file: str, index: int) -> Future[bytes]:
        key = file, index
        if key not in self._pieces:
            start = index * _PIECE_BYTES
            stop = min(start + _PIECE_BYTES, self._sizes[file])
            self._pieces[key] = self._pool.submit(self._fetch, file, start, stop)
            while len(self._pieces) > _NUM_PIECES:
                self._pieces.popitem(last=False)[1].cancel()
        self._pieces.move_to_end(key)
        return self._pieces[key]


def _make_skeleton(folder: Path, remote: _Remote) -> None:
    """The small files, and for each weight file its header in a file of its size without contents."""
    for file, size in remote.sizes.items():
        path = folder / file
        if path.exists() or ".." in path.parts:
            continue
        if "/" not in file and file.endswith(".safetensors"):
            data = _fetch_header(remote, file)
        elif _SIDE.fullmatch(file) and size <= _MOST_SIDE_BYTES:
            data = remote.fetch(file, 0, size) if size else b""
        else:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        with partial.open("wb") as out:
            out.write(data)
            out.truncate(size)
        partial.rename(path)


def _fetch_header(remote: _Remote, file: str) -> bytes:
    size = remote.sizes[file]
    data = remote.fetch(file, 0, min(_FIRST_HEADER_BYTES, size))
    length = 8 + struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else size + 1
    if length > min(size, _MOST_HEADER_BYTES):
        raise CheckpointError(f"{file}: is no safetensors file; fetch another revision")
    return (data + remote.fetch(file, len(data), length))[:length] if length > len(data) else data[:length]


def _is_whole(folder: Path, sizes: Mapping[str, int]) -> bool:
    weights = [file for file in sizes if file.endswith(".safetensors") and "/" not in file]
    return all(
        (folder / file).is_file() and (folder / file).stat().st_size == sizes[file] for file in weights
    )


def _refuse_gguf_alone(name: HubName, sizes: Mapping[str, int]) -> None:
    files = sorted(file for file in sizes if file.endswith(".gguf"))
    if files and "config.json" not in sizes:
        shown = ", ".join(files[:4]) + (f" and {len(files) - 4} more" if len(files) > 4 else "")
        raise CheckpointError(f"{name}: holds GGUF files ({shown}); name one, as {name.repo}:{files[0]}")


def _cache_folder() -> Path:
    return user_cache() / "hub"


def _described(name: HubName, error: Exception) -> CheckpointError:
    """An error of the library in one line, with what to do."""
    remedies = {
        "GatedRepoError": "is gated: accept its licence on its page, then run `hf auth login`",
        "RepositoryNotFoundError": "is not there, or is private: check the name, or run `hf auth login`",
        "RevisionNotFoundError": "has no such revision",
        "EntryNotFoundError": "has no such file",
        "RemoteEntryNotFoundError": "has no such file",
        "LocalEntryNotFoundError": "cannot be reached and is not in the cache; check network and HF_ENDPOINT",
        "OfflineModeIsEnabled": "cannot be fetched while HF_HUB_OFFLINE is set",
        "HFValidationError": "is no name of a model on the Hub, and nothing on this disk either",
    }
    for kind in type(error).__mro__:
        if kind.__name__ in remedies:
            return CheckpointError(f"{name}: {remedies[kind.__name__]}")
    return CheckpointError(f"{name}: cannot be reached: {_one_line(error)}; check the network or HF_ENDPOINT")


def _one_line(error: Any) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
