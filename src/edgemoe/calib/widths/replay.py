"""One expert changed at a time, everything before its layer remembered.

Letters: T tokens of a window, D width, K chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemoe.calib.disk_array import new_disk_array
from edgemoe.calib.widths.ladder import Ladder
from edgemoe.calib.widths.quality import Floats, pieces_of, token_losses
from edgemoe.engine.loading import Engine
from edgemoe.engine.memory import HEAD_ROWS
from edgemoe.engine.stored_weights import read_dense_weights
from edgemoe.models import Decoder, ExpertRunner, Segment
from edgemoe.native import FloatArray, IntArray, Rehearsal
from edgemoe.quant import ExpertFormats
from edgemoe.store import ExpertKey


class _OneChanged:
    """Runs experts as another runner does, but for one, to whose output the change is added."""

    def __init__(self, runner: ExpertRunner, ladder: Ladder, base: ExpertFormats) -> None:
        self._runner, self._ladder, self._base = runner, ladder, base
        self.changed: tuple[ExpertKey, ExpertFormats] | None = None

    def run(
        self,
        layer: int,
        x: FloatArray,
        expert_ids: IntArray,
        weights: FloatArray,
        rehearse: Rehearsal | None = None,
        seen: FloatArray | None = None,
    ) -> FloatArray:
        """See ExpertRunner."""
        y = self._runner.run(layer, x, expert_ids, weights, rehearse, seen)
        if self.changed is None or self.changed[0][0] != layer:
            return y
        key, formats = self.changed
        tokens, ranks = np.nonzero(expert_ids == key[1])
        if len(tokens):
            seen = np.ascontiguousarray(x[tokens])
            change = self._ladder.output(key, formats, seen) - self._ladder.output(key, self._base, seen)
            y[tokens] += weights[tokens, ranks, None] * change
        return y


@dataclass(frozen=True)
class _Chunk:
    """Some tokens of a window (T,), their rows in the file, and what follows each but the window's last."""

    rows: slice
    ids: NDArray[np.int32]
    targets: NDArray[np.int64]
    is_last: bool


class Replay:
    """Text through a model at ``base``, kept before every layer in a file of floats (T, layers, D)."""

    def __init__(
        self,
        ladder: Ladder,
        engine: Engine,
        base: ExpertFormats,
        windows: Sequence[Sequence[int]],
        path: Path,
    ) -> None:
        """``engine`` runs the ladder's model at ``base``; the file ``path`` is made anew and stays."""
        spec = ladder.spec
        self._runner = _OneChanged(engine.experts, ladder, base)
        weights = read_dense_weights(spec, ladder.store({}, base))
        self._decoder = Decoder(spec, weights, self._runner)
        self._state = spec.new_state(engine.memory.context, engine.memory.kv_format)
        self._chunk = engine.memory.chunk_size
        self._windows = windows
        shape = (sum(map(len, windows)), len(spec.layers) + 1, spec.width)
        self._states: NDArray[np.float32] = new_disk_array(path, np.float32, shape)
        for chunk in self._chunks():
            before: list[FloatArray] = []
            embedded = self._decoder.embed(chunk.ids)
            last = self._decoder.forward_from(0, embedded, self._rows(chunk.ids), before)
            self._states[chunk.rows] = np.stack([*before, last], axis=1)

    def change(self, key: ExpertKey, formats: ExpertFormats) -> list[Floats]:
        """Losses by pieces, as ``losses_of``, when one expert has other formats; only its layer and those
        after it run.
        """
        self._runner.changed = (key, formats)
        pieces: list[Floats] = []
        losses: list[Floats] = []
        for chunk in self._chunks():
            kept, ids = self._states[chunk.rows], chunk.ids
            changed = self._decoder.forward_from(key[0], np.array(kept[:, key[0]]), self._rows(ids))
            for start in range(0, len(chunk.targets), HEAD_ROWS):
                part = slice(start, start + HEAD_ROWS)
                losses.append(self._losses(kept[part, -1], changed[part], chunk.targets[part]))
            if chunk.is_last:
                pieces += pieces_of(np.concatenate(losses))
                losses = []
        self._runner.changed = None
        return pieces

    def _losses(
        self, kept: FloatArray, changed: FloatArray, targets: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        count = len(targets)
        a, b = (self._decoder.head(np.ascontiguousarray(states[:count])) for states in (kept, changed))
        return token_losses(a, b, targets)

    def _rows(self, ids: NDArray[np.int32]) -> Sequence[Segment]:
        return (Segment(0, len(ids), self._state),)

    def _chunks(self) -> Iterator[_Chunk]:
        """The text as it goes through the model; the cache is where each chunk begins."""
        row = 0
        for window in self._windows:
            self._state.rewind(0)
            for start in range(0, len(window), self._chunk):
                end = min(start + self._chunk, len(window))
                ids = np.asarray(window[start:end], np.int32)
                targets = np.asarray(window[start + 1 : end + 1], np.int64)
                yield _Chunk(slice(row, row + len(ids)), ids, targets, end == len(window))
                row += len(ids)
