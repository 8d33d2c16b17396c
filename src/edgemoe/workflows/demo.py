"""The store inside this package, and a budget that shows what streaming is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path

from edgemoe.engine.memory import plan_memory
from edgemoe.engine.store_needs import needs_of
from edgemoe.models import read_spec
from edgemoe.store import open_store

# Of the experts in memory: small enough to show streaming, large enough to show hits.
DEMO_RESIDENT_SHARE = 1 / 3


@contextmanager
def demo_store() -> Iterator[Path]:
    """The folder of the embedded store."""
    with as_file(files("edgemoe") / "demo_store") as path:
        yield path


def demo_budget(store: Path) -> int:
    """Bytes that hold everything but two thirds of the experts."""
    opened = open_store(store)
    spec = read_spec(opened.config)
    smallest = plan_memory(spec, opened.manifest, needs=needs_of(spec, opened)).smallest_num_bytes
    expert_bytes = sum(entry.num_bytes for entry in opened.manifest.experts.values())
    return smallest + int(expert_bytes * DEMO_RESIDENT_SHARE)
