"""Ways to damage a file: bytes anywhere, and values of JSON, by a seeded generator that can be repeated."""

from __future__ import annotations

import copy
import json
import random
import struct
from typing import Any

_INTERESTING = (
    *(None, True, False, 0, 1, -1, 2, 31, 32, 255, 10**9, 1 << 31, (1 << 31) - 1, 1 << 32, (1 << 53) + 1),
    *((1 << 63) - 1, 1 << 64, 10**30, 0.0, -0.5, 1e30, 1e-30, 1e308, float("inf"), float("nan")),
    *("", "x", "../x", "/etc/passwd", "a\0b", "\x1b[31m", "\ud800", "1", "f32", "q4", "yarn", "x" * 5000),
    *([], [0], [[]], {}, {"a": 1}, [1] * 999),
)


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """One to eight changes of single bytes, words, or pieces."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        at = rng.randrange(len(changed) + 1)
        kind = rng.randrange(6)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            word = struct.pack("<Q", rng.choice((0, 1, 255, 1 << 20, 1 << 31, 1 << 40, (1 << 64) - 1)))
            changed[at : at + 8] = word[: rng.choice((1, 2, 4, 8))]
        elif kind == 2:
            del changed[at : at + rng.choice((1, 4, 64, len(changed)))]
        elif kind == 3:
            changed[at:at] = rng.randbytes(rng.choice((1, 4, 64)))
        elif kind == 4:
            piece = bytes(changed[at : at + rng.choice((4, 32, 256))])
            changed[at:at] = piece * rng.choice((1, 3))
        else:
            changed[at : at + 4] = rng.randbytes(4)
    return bytes(changed)


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """One to three values replaced, removed, doubled or nested; sometimes bytes instead."""
    if rng.random() < 0.15:
        return mutate_bytes(data, rng)
    value = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = _mutate_value(value, rng)
    text = json.dumps(value)
    if rng.random() < 0.03:
        text = "[" * 100_000 + text
    return text.encode("utf-8", "replace")


def _mutate_value(value: Any, rng: random.Random) -> Any:
    places = list(_places(value))
    if not places:
        return copy.deepcopy(rng.choice(_INTERESTING))
    parent, key = rng.choice(places)
    kind = rng.randrange(5)
    if kind == 0 and isinstance(parent, dict):
        del parent[key]
    elif kind == 1 and isinstance(parent, list):
        parent.append(copy.deepcopy(parent[key]))
    elif kind == 2:
        other, other_key = rng.choice(places)
        parent[key] = copy.deepcopy(other[other_key])
    elif kind == 3 and isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
        parent[key] = parent[key] * rng.choice((-1, 2, 32, 1000)) + rng.choice((0, 1, 4096))
    else:
        parent[key] = copy.deepcopy(rng.choice(_INTERESTING))
    return value


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in list(items):
        yield value, key
        yield from _places(part)
