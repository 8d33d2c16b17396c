"""Which experts are in memory and who leaves for whom. Used by one thread.

Experts are numbered by layer, then by expert; only layers that have experts count, and a layer's position is
its place among those. Letters: N experts in all, E of a layer, T tokens, K chosen.

``UseStatistics`` keeps how often and when each expert was used, and which layer is running:

* ``observe(position, expert_ids)``: the layer runs for T tokens, which chose ``expert_ids`` (T, K) of its own
  experts, 0 to E - 1. Returns the numbers of those, ascending, each once.
* ``expect(position, uses)``: a forecast (E,) of which the next token will use, a probability for each.
* ``expect_from(position, x, expert_ids, weights, head)``: that forecast by a head (E, C), from what the
  layer's router saw and chose for the last token of x (T, D); its columns are those of ``GatePredictor``.
* ``frequency`` and ``expected`` (N,): uses per token, decayed, and by the next token.
* ``clock``: layers run so far. ``layers_until(experts)``: until each one's layer runs next.

``EvictionPolicy(depends_on_layer)``: its ``worth(statistics, candidates)`` gives one value for each
candidate, and the lowest leaves first. Derive from it to write one; ``make_policy(name)`` gives those
that are built in.

``Residency(statistics, policy, capacity_bytes, floor_share)``: the books of a cache; see ``experts``.

ValueError where an expert, a position or a shape does not fit.
"""

from __future__ import annotations

import edgemoe._native as _native

EvictionPolicy = _native.EvictionPolicy
Residency = _native.Residency
UseStatistics = _native.UseStatistics
make_policy = _native.make_policy
