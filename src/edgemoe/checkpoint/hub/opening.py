"""Opens a model of the Hub, and says in one line why it cannot be opened."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgemoe.checkpoint.folder import FolderCheckpoint
from edgemoe.checkpoint.gguf import GgufCheckpoint, names_of_parts
from edgemoe.checkpoint.hub.folder import HubCheckpoint
from edgemoe.checkpoint.hub.gguf import HubGguf
from edgemoe.checkpoint.hub.names import HubName, find_file, gguf_models, shown
from edgemoe.checkpoint.hub.remote import Remote, one_line
from edgemoe.checkpoint.source import CheckpointSource
from edgemoe.errors import CheckpointError
from edgemoe.store.format import MANIFEST_FILE
from edgemoe.user_folders import user_cache

# Weights that are read where they are; adapters, and those of folders below, are none.
_WEIGHTS = re.compile(r"model[^/]*\.safetensors")
_TORCH = re.compile(r"pytorch_model[^/]*\.bin")
# Of a model whose weights are torch's, all that the reader of a folder looks at.
_READ_WHOLE = ["pytorch_model*.bin", "*.json", "*.jinja", "*.txt", "*.model"]


def open_hub(name: HubName, cache: Path | None = None) -> CheckpointSource:
    """Open a model of the Hub; ``cache`` holds its small files (default: the user's cache folder).

    A whole copy in the Hub's own cache is used as it is.

    Raises:
        CheckpointError: there is no such model, it is not public, or it cannot be reached.
    """
    with _failing_clearly(name):
        return _open(name, cache)


def with_file(name: HubName) -> HubName:
    """The name with the whole name of its GGUF file, where only a word of it was given, such as Q4_K_M.

    Raises:
        CheckpointError: as ``open_hub``, or not exactly one file has that word.
    """
    if name.has_whole_file:
        return name
    import huggingface_hub as hub

    with _failing_clearly(name):
        return find_file(name, hub.HfApi().list_repo_files(name.repo, revision=name.revision))


def _open(name: HubName, cache: Path | None) -> CheckpointSource:
    import huggingface_hub as hub
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return _open_cached(name)
    info = hub.HfApi().model_info(name.repo, revision=name.revision, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    remote = Remote(name.repo, str(info.sha), sizes)
    folder = (cache or _cache_folder()) / f"{name.repo.replace('/', '--')}@{remote.commit[:12]}"
    if name.file is not None:
        file = str(find_file(name, remote.sizes).file)
        whole = _whole_copy(remote, names_of_parts(file))
        return HubGguf(folder, file, remote) if whole is None else GgufCheckpoint(whole)
    _refuse_store(name, remote.sizes)
    weights = [file for file in remote.sizes if _WEIGHTS.fullmatch(file)]
    if not weights:
        _refuse_gguf_alone(name, remote.sizes)
        # Files of torch are archives that are read in any order.
        return FolderCheckpoint(
            Path(hub.snapshot_download(name.repo, revision=info.sha, allow_patterns=_READ_WHOLE))
        )
    whole = _whole_copy(remote, ["config.json", *weights])
    return HubCheckpoint(folder, remote) if whole is None else FolderCheckpoint(whole.parent)


def _open_cached(name: HubName) -> CheckpointSource:
    """What the Hub's own cache has."""
    import huggingface_hub as hub

    if name.file is None:
        return FolderCheckpoint(
            Path(hub.snapshot_download(name.repo, revision=name.revision, local_files_only=True))
        )
    if not name.has_whole_file:
        raise CheckpointError(f"{name}: HF_HUB_OFFLINE is set, so the file's whole name has to be given")
    parts = names_of_parts(name.file)
    paths = [hub.hf_hub_download(name.repo, part, revision=name.revision) for part in parts]
    return GgufCheckpoint(Path(paths[0]))


def _whole_copy(remote: Remote, files: Sequence[str]) -> Path | None:
    """The first of these files in the Hub's own cache, if it has all of them."""
    import huggingface_hub as hub

    found = [hub.try_to_load_from_cache(remote.repo, file, revision=remote.commit) for file in files]
    paths = [Path(path) for path in found if isinstance(path, str)]
    is_whole = len(paths) == len(files) and all(
        path.stat().st_size == remote.sizes[file] for path, file in zip(paths, files, strict=True)
    )
    return paths[0] if is_whole else None


def _refuse_store(name: HubName, files: Iterable[str]) -> None:
    if MANIFEST_FILE in files:
        raise CheckpointError(f"{name}: is a store already; run it from there, as hf://{name}")


def _refuse_gguf_alone(name: HubName, files: Iterable[str]) -> None:
    models = gguf_models(files)
    if models and not any(_TORCH.fullmatch(file) for file in files):
        raise CheckpointError(
            f"{name}: holds GGUF files ({shown(models)}); name one, as {name.repo}:{models[0]}"
        )


def _cache_folder() -> Path:
    return user_cache() / "hub"


@contextmanager
def _failing_clearly(name: HubName) -> Iterator[None]:
    """Errors of the library as one line each."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise _described(name, error) from error


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
    return CheckpointError(f"{name}: cannot be reached: {one_line(error)}; check the network or HF_ENDPOINT")
