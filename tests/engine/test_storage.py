"""The queue depth that is chosen for storage of known behaviour, by a clock that storage alone moves."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edgemoe.engine import storage
from edgemoe.store import open_store


class Storage:
    """Reads that each take ``latency_s``, as many at a time as the depth and ``num_lines`` allow."""

    def __init__(self, latency_s, num_lines):
        self.latency_s, self.num_lines = latency_s, num_lines
        self.now_s = 0.0
        self.num_bytes = {}
        self.deepest = 0

    def set_depth(self, depth):
        self.depth = depth

    def submit(self, file, offset, out, priority=0):
        self.num_bytes[offset] = len(out)
        self.deepest = max(self.deepest, len(self.num_bytes))
        return offset

    def wait(self, ticket):
        del self.num_bytes[ticket]
        self.now_s += self.latency_s / min(self.depth, self.num_lines)


@pytest.mark.parametrize(("num_lines", "depth"), [(1, 2), (2, 2), (4, 4), (8, 8)])
def test_the_depth_is_what_storage_serves_at_a_time(tiny_store, monkeypatch, num_lines, depth):
    store, slow = open_store(tiny_store), Storage(1e-3, num_lines)
    monkeypatch.setattr(storage, "time", SimpleNamespace(perf_counter=lambda: slow.now_s))
    monkeypatch.setattr(storage, "_kernel_s", lambda: 0.2 * slow.now_s)
    speed = storage.tune_depth(store, slow)
    assert slow.depth == depth
    num_bytes = next(iter(store.manifest.experts.values())).num_bytes
    assert speed.bytes_per_s == pytest.approx(num_bytes * num_lines / 1e-3)
    assert speed.latency_s == pytest.approx(1e-3 - 1e-3 / num_lines)
    # The mean over all depths: between that of a read alone and that at the most lines.
    assert 0.999 / num_lines <= speed.handling_s / 0.2e-3 <= 1.001
    assert slow.deepest > depth, "the queue ran dry between reads"
