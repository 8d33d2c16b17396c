"""Reading ahead: forecasts, and which of the forecast experts are worth starting to read. Used by one thread.

Experts are numbered by layer, then by expert; a layer's position is its place among those that have experts.
Letters: T tokens, D width, E experts of a layer, E1 and E2 of the one and two layers before it, K chosen,
C columns of a head.

Predictors have ``forecast(position, x, expert_ids, weights, lookahead)``: (position, scores (T, E)) of the
next ``lookahead`` layers or fewer, given what a layer's router saw (T, D) and chose (T, K).

* ``GatePredictor(heads, num_experts, routers)``: ``heads`` gives by position a matrix and its targets,
  (position, E) in the order of its rows. A token's row of C columns is its state, the weights of the chosen
  by expert, and 1; what is left of C multiplies nothing. ``routers`` make choice scores of the products, by
  the position that is forecast.
* ``TablePredictor(tables, num_experts)``: ``tables`` gives by the position that they forecast probabilities
  given one expert of the layer before (E1, E), of the one before that (E2, E), and of both (E2, E1, E) or
  None.
* ``HybridPredictor(gate, table, table_weights)`` and ``StepPredictor(predictor, first_step)``; see
  ``experts.predictors``.

``LayerPace(bytes_per_s, latency_s, handling_s, clock)``: how fast storage delivers, how long a read keeps the
processor busy, and how long a layer takes by a clock in seconds; without one by the machine's.

``Speculation(residency, reads, predictor, pace, top_k, record_sizes, max_rehearsed)`` starts reads of
forecast experts, for which up to ``max_rehearsed`` layers are rehearsed, MAX_REHEARSED at most:

* ``settle(position, num_tokens, chosen)``: the router chose experts of these numbers, ascending;
  drops what was read ahead for others, and returns what was rightly.
* ``start(position, x, expert_ids, weights)`` forecasts the next layers and queues the reads that pay.
* ``records(distance)``: how forecasts for single tokens held, of the predictor (0) or of rehearsals by the
  layer so many layers before: by position how many there were, and how many of the experts ranked r were
  chosen.
* ``is_on``: False while single tokens were faster without, and while they are timed without.
* ``num_reads`` started and ``wasted_bytes``, read for a layer that chose otherwise, so far.

ValueError where an expert, a position or a shape does not fit.
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
