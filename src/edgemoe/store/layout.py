"""Where every tensor of a store will lie, known before the first byte is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgemoe.quant import ExpertFormats
from edgemoe.safetensors_header import build_header
from edgemoe.store.format import (
    DENSE_FILE,
    RECORD_ALIGNMENT,
    ExpertKey,
    dense_num_bytes,
    expert_name,
    expert_num_bytes,
)

# A shard stays below what FAT file systems of memory cards can hold.
MAX_SHARD_BYTES = 4 * 1024**3 - 64 * 1024**2


@dataclass(frozen=True, slots=True)
class Place:
    """A contiguous range of one file; ``offset`` counts from the start of the file."""

    file: str
    offset: int
    num_bytes: int


@dataclass(frozen=True)
class StoreLayout:
    """Headers and places of all tensors; ``num_bytes`` counts all data files."""

    headers: Mapping[str, bytes]
    dense: Mapping[str, Place]
    experts: Mapping[ExpertKey, Place]
    num_bytes: int


def plan_layout(
    dense: Mapping[str, tuple[str, tuple[int, ...]]],
    experts: Iterable[tuple[ExpertKey, ExpertFormats, int]],
    width: int | Mapping[int, int],
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> StoreLayout:
    """Lay out dense tensors (name -> format, shape) and experts (key, formats, expert width) in order.

    ``width`` is that of the model, or of each layer where they differ.
    """
    headers: dict[str, bytes] = {}
    dense_sizes = [(name, dense_num_bytes(format, shape)) for name, (format, shape) in dense.items()]
    dense_places = dict(_place_all(DENSE_FILE, dense_sizes, headers))
    expert_places: dict[ExpertKey, Place] = {}
    for number, shard in enumerate(_shards(experts, width, max_shard_bytes)):
        names = {expert_name(key): key for key, _ in shard}
        sizes = [(name, size) for name, (_, size) in zip(names, shard, strict=True)]
        for name, place in _place_all(f"experts-{number:05d}.safetensors", sizes, headers):
            expert_places[names[name]] = place
    places = [*dense_places.values(), *expert_places.values()]
    total = sum(map(len, headers.values())) + sum(place.num_bytes for place in places)
    return StoreLayout(headers, dense_places, expert_places, total)


def _shards(
    experts: Iterable[tuple[ExpertKey, ExpertFormats, int]],
    width: int | Mapping[int, int],
    max_shard_bytes: int,
) -> Iterable[list[tuple[ExpertKey, int]]]:
    shard: list[tuple[ExpertKey, int]] = []
    shard_bytes = 0
    for key, formats, expert_width in experts:
        own = width if isinstance(width, int) else width[key[0]]
        num_bytes = expert_num_bytes(formats, own, expert_width)
        if shard and shard_bytes + num_bytes > max_shard_bytes:
            yield shard
            shard, shard_bytes = [], 0
        shard.append((key, num_bytes))
        shard_bytes += num_bytes
    if shard:
        yield shard


def _place_all(
    file: str, sizes: list[tuple[str, int]], headers: dict[str, bytes]
) -> Iterable[tuple[str, Place]]:
    headers[file] = build_header(sizes, {"format": "edgemoe"}, RECORD_ALIGNMENT)
    offset = len(headers[file])
    for name, num_bytes in sizes:
        yield name, Place(file, offset, num_bytes)
        offset += num_bytes
