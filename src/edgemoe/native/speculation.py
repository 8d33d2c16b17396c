"""Reading ahead: forecasts, and which of the forecast experts are worth starting to read. Used by one thread.

Experts are numbered by layer, then by expert; a layer's position is its place among those that have experts.
Letters: T tokens, D width, E experts of a layer, E1 and E2 of the one and two layers before it, K chosen,
C columns of a head. ``help()`` of the classes says what each does; see also ``experts.predictors``.
"""

from __future__ import annotations

from typing import Any, Protocol

import edgemoe._native as _native

GatePredictor = _native.GatePredictor
HybridPredictor = _native.HybridPredictor
LayerPace = _native.LayerPace
Speculation = _native.Speculation
StepPredictor = _native.StepPredictor
TablePredictor = _native.TablePredictor
MAX_REHEARSED: int = _native.MAX_REHEARSED


class Reads(Protocol):
    """What speculation asks of the reads under way."""

    @property
    def pending_bytes(self) -> int:
        """Bytes of reads under way."""
        ...

    @property
    def demanded_bytes(self) -> int:
        """Of these, what is needed now."""
        ...

    @property
    def waited_s(self) -> float:
        """Seconds spent waiting for reads so far."""
        ...

    def __contains__(self, expert: int) -> bool: ...

    def start(self, expert: int, priority: int) -> bool:
        """Queue the read of an absent expert; False if there is no room for it."""
        ...

    def cancel(self, expert: int) -> bool:
        """Drop a read that has not started; True if so."""
        ...


def compiled_predictor(predictor: Any) -> _native.Predictor:
    """A predictor as compiled code takes it, also where it is written in Python."""
    return predictor if isinstance(predictor, _native.Predictor) else _native.PythonPredictor(predictor)


def compiled_reads(reads: Reads) -> _native.Reads:
    """Reads as compiled code takes them, also where they are kept account of in Python."""
    return reads if isinstance(reads, _native.Reads) else _native.PythonReads(reads)
