"""What use statistics, policies and the residency mean, in NumPy: the oracle of the compiled ones."""

from __future__ import annotations

import numpy as np

FLOOR_SHARE = 0.25


class Statistics:
    """See ``edgemoe.experts.UseStatistics``."""

    def __init__(self, catalog, half_life_tokens):
        self.catalog = catalog
        self.keep = 0.5 ** (1 / half_life_tokens)
        self.frequency, self.expected = np.zeros(len(catalog)), np.zeros(len(catalog))
        self.last_use = np.full(len(catalog), -1)
        self.clock = self.position = 0

    def observe(self, position, expert_ids):
        self.position = position
        self.clock += 1
        span, num_tokens = self.catalog.span(position), len(expert_ids)
        self.frequency[span] *= self.keep**num_tokens
        ids, counts = np.unique(expert_ids, return_counts=True)
        self.frequency[span.start + ids] += counts * (1 - self.keep**num_tokens) / num_tokens
        self.last_use[span.start + ids] = self.clock
        return (span.start + ids).tolist()

    def expect(self, position, uses):
        self.expected[self.catalog.span(position)] = np.maximum(uses, 0)

    def layers_until(self):
        catalog, positions = self.catalog, self.catalog.layer_position
        if self.position < catalog.first_step:
            return np.where(positions > self.position, positions - self.position, catalog.num_layers)
        steps = (positions - self.position - 1) % catalog.num_step_layers + 1
        return np.where(positions < catalog.first_step, catalog.num_layers, steps)

    def num_over(self):
        """Experts of an encoder's layers that are done with."""
        return self.catalog.experts(min(self.position, self.catalog.first_step)).start


def worth(policy, statistics):
    """Of every expert."""
    s, catalog = statistics, statistics.catalog
    since = (s.position - catalog.layer_position) % catalog.num_step_layers
    return {
        "lru": s.last_use.astype(float),
        "lfu": s.frequency + 1e-9 * (s.last_use / (s.clock + 1)),
        "lfru": (s.frequency + 1e-6) / (1 + (s.clock - s.last_use) / catalog.num_layers),
        "edgemoe": (s.frequency + 1e-6) / s.layers_until(),
        "forecast": (s.frequency + s.expected + 1e-6) / s.layers_until(),
        "edgemoe-printed": (s.frequency + 1e-6) / np.maximum(since, 1),
    }[policy]


class Books:
    """See ``edgemoe.experts.Residency``."""

    def __init__(self, statistics, policy, capacity_bytes):
        self.statistics, self.policy, self.capacity_bytes = statistics, policy, capacity_bytes
        catalog = self.catalog = statistics.catalog
        self.floor_bytes = int(FLOOR_SHARE * capacity_bytes / catalog.num_layers)
        self.is_held, self.is_resident, self.is_pinned, self.is_reserved = (
            np.zeros(len(catalog), bool) for _ in range(4)
        )
        self.order, self.order_clock = [], None

    def take(self, expert, is_demand):
        missing = self.catalog.num_bytes[self.is_held].sum() + self.catalog.num_bytes[expert]
        missing -= self.capacity_bytes
        leaving = self._choose(missing, expert, is_demand) if missing > 0 else []
        if leaving is not None:
            self.is_held[leaving] = self.is_resident[leaving] = False
            self.is_held[expert] = True
        return leaving

    def _choose(self, missing, expert, is_demand):
        leaving = self._from_order(missing, expert, is_new=False) or self._from_order(missing, expert, True)
        if leaving is None and is_demand:
            free = np.flatnonzero(self.is_resident & ~self.is_pinned)
            leaving = self._until(free[np.argsort(self._worth()[free], kind="stable")], missing)
        return leaving

    def _from_order(self, missing, expert, is_new):
        """The cheapest of the order; it stays for a layer, or for a token where layers do not matter."""
        statistics = self.statistics
        depends_on_layer = self.policy in ("edgemoe", "forecast", "edgemoe-printed")
        lasts = 1 if depends_on_layer or self.catalog.first_step else self.catalog.num_layers
        if is_new and self.order_clock == statistics.clock and self.made_now:
            return None
        self.made_now = False
        if is_new or self.order_clock is None or statistics.clock - self.order_clock >= lasts:
            held = np.flatnonzero(self.is_resident)
            self.order = held[np.argsort(self._worth()[held], kind="stable")].tolist()
            self.order_clock, self.made_now = statistics.clock, True
        leaving = []
        while self.order and self.catalog.num_bytes[leaving].sum() < missing:
            victim = self.order.pop(0)
            if self._may_leave(victim, expert):
                leaving.append(victim)
        return self._until(leaving, missing)

    def _until(self, experts, missing):
        for count in range(1, len(experts) + 1):
            if self.catalog.num_bytes[experts[:count]].sum() >= missing:
                return list(experts[:count])
        return None

    def _may_leave(self, victim, expert):
        statistics, position = self.statistics, self.catalog.layer_position[victim]
        is_over = position < self.catalog.first_step and position < statistics.position
        layer_bytes = self.catalog.num_bytes[self.is_held & (self.catalog.layer_position == position)].sum()
        return (
            self.is_resident[victim]
            and not self.is_pinned[victim]
            and not self.is_reserved[victim]
            and (
                position == self.catalog.layer_position[expert]
                or layer_bytes > (0 if is_over else self.floor_bytes)
            )
            and statistics.last_use[victim] <= self.order_clock
        )

    def _worth(self):
        values = worth(self.policy, self.statistics)
        if self.catalog.first_step:
            values[: self.statistics.num_over()] = -np.inf
        return values
