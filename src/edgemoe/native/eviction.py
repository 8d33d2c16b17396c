"""Which experts are in memory and who leaves for whom. Used by one thread.

Experts are numbered by layer, then by expert; only layers that have experts count, and a layer's position is
its place among those. Letters: N experts in all, E of a layer, T tokens, K chosen. ``help()`` of the classes
says what each does.
"""

from __future__ import annotations

import edgemoe._native as _native

EvictionPolicy = _native.EvictionPolicy
Residency = _native.Residency
UseStatistics = _native.UseStatistics
make_policy = _native.make_policy
