"""The store inside this package, loaded with a budget that shows what streaming is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path

from edgemoe.api import Model, load
from edgemoe.engine.memory import plan_memory
from edgemoe.engine.store_needs import needs_of
from edgemoe.errors import BudgetError
from edgemoe.models import read_spec
from edgemoe.store import open_store

# Of the experts in memory: small enough to show streaming, large enough to show hits.
DEMO_RESIDENT_SHARE = 1 / 3


@contextmanager
def demo_store() -> Iterator[Path]:
    """The folder of the embedded store."""
    with as_file(files("edgemoe") / "demo_store") as path:
        yield path


def load_demo(store: Path) -> Model:
    """The model with a budget that holds everything but two thirds of the experts."""
    opened = open_store(store)
    spec = read_spec(opened.config)
    smallest = plan_memory(spec, opened.manifest, needs=needs_of(spec, opened)).smallest_num_bytes
    resident_bytes = int(DEMO_RESIDENT_SHARE * sum(e.num_bytes for e in opened.manifest.experts.values()))
    while True:
        try:
            return load(store, smallest + resident_bytes)
        except BudgetError as error:
            # A process that takes more than plans reckon with is measured, and loading has made it larger.
            if error.smallest_num_bytes <= smallest:
                raise
            smallest = error.smallest_num_bytes
