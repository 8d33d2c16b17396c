"""A text's state in a file, so that a long prompt is read once in its life.

The file is one of safetensors, all tensors U8: ``tokens`` and ``prompt`` (int32, the prompt being an
encoder's), then ``pieces.0`` and so on, what ``SequenceState.pieces`` gives, in that order. Its metadata name
the format's version, the weights and the kind of keys and values that it was made with, and the xxh3_64 of
all that follows the header. It is written beside its name, forced to disk and renamed: whole or not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from edgemoe.engine.holding import Holding
from edgemoe.errors import CorruptStoreError, RequestError, StoreError
from edgemoe.models import SequenceState
from edgemoe.safetensors_header import TensorRange, build_header, read_header
from edgemoe.store.durable import replacing
from edgemoe.system import drop_from_cache, sync_file

VERSION = "1"
_ALIGNMENT = 64


@dataclass(frozen=True)
class SavedState:
    """A file whose header has been read and fits the model; its pieces are read by ``fill``."""

    path: Path
    prompt: tuple[int, ...]
    token_ids: tuple[int, ...]
    _places: tuple[TensorRange, ...]
    _checksum: str

    def fill(self, state: SequenceState) -> None:
        """Give an empty state what the file holds.

        Raises:
            RequestError: the file cannot be read.
            CorruptStoreError: it is damaged, or does not fit the state.
        """
        state.resume(len(self.token_ids), len(self.prompt))
        pieces = state.pieces()
        if [piece.nbytes for piece in pieces] != [place.num_bytes for place in self._places]:
            raise CorruptStoreError(f"{self.path}: its pieces are not those of this model; save it again")
        digest = xxhash.xxh3_64()
        for ids in (self.token_ids, self.prompt):
            digest.update(np.asarray(ids, np.int32).tobytes())
        try:
            with self.path.open("rb") as file:
                for piece, place in zip(pieces, self._places, strict=True):
                    file.seek(place.offset)
                    for part in _parts(piece):
                        if file.readinto(part) != part.nbytes:
                            raise CorruptStoreError(f"{self.path}: cut off; save it again")
                        digest.update(part)
                drop_from_cache(file.fileno())
        except OSError as error:
            raise RequestError(f"{self.path} cannot be read: {error.strerror}") from error
        if digest.hexdigest() != self._checksum:
            raise CorruptStoreError(f"{self.path}: its bytes are not those that were written; save it again")
        state.keep()


def state_num_bytes(holding: Holding) -> int:
    """What a text's tokens and pieces take in a file.

    Raises:
        RequestError: the model has states that cannot be stored.
    """
    return 4 * (len(holding.token_ids) + len(holding.prompt)) + sum(p.nbytes for p in _pieces(holding))


def _pieces(holding: Holding) -> list[NDArray[Any]]:
    try:
        return holding.state.pieces()
    except NotImplementedError as error:
        raise RequestError(f"this model has layers whose states cannot be stored ({error})") from None


def write_state(path: Path, holding: Holding, weights_id: str, kv_format: str) -> None:
    """Write the state of a text, which is pinned.

    Raises:
        RequestError: the model has states that cannot be stored, or the file cannot be written.
    """
    _refuse_no_file(path, "written")  # a device or a pipe would be gone
    pieces = _pieces(holding)
    ids = [np.asarray(holding.token_ids, np.int32), np.asarray(holding.prompt, np.int32)]
    arrays = [*ids, *pieces]
    digest = xxhash.xxh3_64()
    for array in arrays:
        for part in _parts(array):
            digest.update(part)
    names = ["tokens", "prompt", *(f"pieces.{i}" for i in range(len(pieces)))]
    metadata = {
        "edgemoe_state": VERSION,
        "weights": weights_id,
        "kv_format": kv_format,
        "checksum": digest.hexdigest(),
    }
    sizes = [(name, array.nbytes) for name, array in zip(names, arrays, strict=True)]
    try:
        with replacing(path) as new, new.open("wb") as file:
            file.write(build_header(sizes, metadata, _ALIGNMENT))
            for array in arrays:
                for part in _parts(array):
                    file.write(part)
            file.flush()
            sync_file(file.fileno())
            drop_from_cache(file.fileno())
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror}") from error


def open_state(path: Path, weights_id: str, kv_format: str) -> SavedState:
    """Read the header of a file that ``write_state`` wrote.

    Raises:
        RequestError: it cannot be read.
        StoreError: it is none, is damaged, or is of other weights or another kind of keys and values.
    """
    _refuse_no_file(path, "read")  # a pipe would be waited for
    try:
        header = read_header(path)
        metadata, tensors = header.metadata, header.tensors
        if metadata.get("edgemoe_state") != VERSION:
            raise StoreError(f"{path}: no state that this version of EdgeMoE has saved")
        for name, own, what in (("weights", weights_id, "another store"), ("kv_format", kv_format, "")):
            if metadata.get(name) != own:
                raise StoreError(
                    f"{path}: saved with {what or f'keys and values in {metadata.get(name)}'};"
                    " load that, or save the text again"
                )
        places = tuple(tensors[f"pieces.{i}"] for i in range(len(tensors) - 2))
        tokens, prompt = (_read_ids(path, tensors[name]) for name in ("tokens", "prompt"))
        return SavedState(path, prompt, tokens, places, str(metadata.get("checksum")))
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from error
    except KeyError as error:
        raise CorruptStoreError(f"{path}: has no {error}; save it again") from error
    except StoreError:
        raise
    except ValueError as error:
        raise CorruptStoreError(str(error)) from error


def _refuse_no_file(path: Path, done: str) -> None:
    if path.exists() and not path.is_file():
        raise RequestError(f"{path} cannot be {done}: it is there and is no file")


def _read_ids(path: Path, place: TensorRange) -> tuple[int, ...]:
    with path.open("rb") as file:
        file.seek(place.offset)
        ids: Sequence[int] = np.frombuffer(file.read(place.num_bytes // 4 * 4), np.int32).tolist()
    return tuple(ids)


def _parts(array: NDArray[Any]) -> Iterator[memoryview]:
    """The bytes of an array, in pieces that are contiguous."""
    if array.flags.c_contiguous:
        if array.nbytes:
            yield array.reshape(-1).view(np.uint8).data
        return
    for row in array:
        yield from _parts(row)
