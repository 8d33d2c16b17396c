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


class Places:
    """Where records lie: ``blocks`` of [bytes, expert or None], side by side."""

    def __init__(self, capacity_bytes, sizes):
        self.sizes = sizes
        self.holds_all = sum(sizes) <= capacity_bytes
        self.blocks = [[capacity_bytes, None]]

    def fits(self, expert):
        return self.holds_all or self._hole(expert) is not None

    def put(self, expert):
        """Whether it has a place now."""
        if not self.fits(expert):
            return False
        if not self.holds_all:
            index, size = self._hole(expert), self.sizes[expert]
            left = self.blocks[index][0] - size
            self.blocks[index : index + 1] = [[size, expert]] + [[left, None]] * (left > 0)
        return True

    def remove(self, expert):
        merged = []
        for size, there in self.blocks:
            is_hole = there is None or there == expert
            if is_hole and merged and merged[-1][1] is None:
                merged[-1][0] += size
            else:
                merged.append([size, None if is_hole else there])
        self.blocks = merged

    def cheapest_run(self, within, num_bytes, cost_of):
        """(cost, experts) of neighbours, ``within`` among them, that have so many bytes with their holes."""
        costs = [0.0 if there is None else cost_of(there) for _, there in self.blocks]
        middle = next(i for i, (_, there) in enumerate(self.blocks) if there == within)
        best, experts = np.inf, []
        for first in range(middle, -1, -1):
            for end in range(middle + 1, len(self.blocks) + 1):
                blocks = self.blocks[first:end]
                if sum(size for size, _ in blocks) < num_bytes:
                    continue
                cost = 0.0
                for i in [*range(middle, first - 1, -1), *range(middle + 1, end)]:
                    cost += costs[i]
                if cost < best:
                    best, experts = cost, [there for _, there in blocks if there is not None]
                break
        return best, experts

    def _hole(self, expert):
        holes = [
            (size, i)
            for i, (size, there) in enumerate(self.blocks)
            if there is None and size >= self.sizes[expert]
        ]
        return min(holes)[1] if holes else None


class Books:
    """See ``edgemoe.experts.Residency``."""

    def __init__(self, statistics, policy, capacity_bytes):
        self.statistics, self.policy, self.capacity_bytes = statistics, policy, capacity_bytes
        catalog = self.catalog = statistics.catalog
        self.floor_bytes = int(FLOOR_SHARE * capacity_bytes / catalog.num_layers)
        self.is_held, self.is_resident, self.is_pinned, self.is_reserved = (
            np.zeros(len(catalog), bool) for _ in range(4)
        )
        self.places, self.apart = Places(capacity_bytes, catalog.num_bytes.tolist()), set()
        self.costs, self.order_clock = {}, None

    def take(self, expert, is_demand):
        used = self.catalog.num_bytes[self.is_held].sum() + self.catalog.num_bytes[expert]
        leaving = []
        if used > self.capacity_bytes or not self.places.fits(expert):
            leaving = self._choose(expert, is_demand, used - self.capacity_bytes)
        if leaving is not None:
            for victim in leaving:
                self.drop(victim)
            self.is_resident[leaving] = False
            self.is_held[expert] = True
            if not self.places.put(expert):
                self.apart.add(expert)
        return leaving

    def drop(self, expert):
        self.is_held[expert] = False
        self.costs.pop(expert, None)
        self.places.remove(expert)
        self.apart.discard(expert)

    def _choose(self, expert, is_demand, missing):
        if not self.apart:
            leaving = self._from_order(expert, is_due=False) or self._from_order(expert, is_due=True)
            if leaving:
                return leaving
        if not is_demand:
            return None
        costs = self._costs(np.flatnonzero(self.is_resident & ~self.is_pinned))
        leaving = [] if self.apart else self._run(expert, costs, lambda e: costs.get(e, np.inf))
        for victim in [] if leaving else sorted(costs, key=lambda e: (costs[e], e)):
            if self.catalog.num_bytes[leaving].sum() < missing:
                leaving.append(victim)
        return leaving if self.catalog.num_bytes[leaving].sum() >= missing else None

    def _from_order(self, expert, is_due):
        """The cheapest of the order; it stays for a layer, or for a token where layers do not matter."""
        statistics = self.statistics
        depends_on_layer = self.policy in ("edgemoe", "forecast", "edgemoe-printed")
        lasts = 1 if depends_on_layer or self.catalog.first_step else self.catalog.num_layers
        if is_due or self.order_clock is None or statistics.clock - self.order_clock >= lasts:
            self.costs = self._costs(np.flatnonzero(self.is_resident))
            self.order_clock = statistics.clock
        return self._run(
            expert, self.costs, lambda e: self.costs.get(e, np.inf) if self._may_leave(e, expert) else np.inf
        )

    def _run(self, expert, costs, cost_of):
        best, found = np.inf, []
        for within in sorted(costs, key=lambda e: (costs[e], e)):
            if cost_of(within) < np.inf:
                cost, experts = self.places.cheapest_run(within, self.catalog.num_bytes[expert], cost_of)
                if cost < best:
                    best, found = cost, experts
        return found

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

    def _costs(self, experts):
        values = worth(self.policy, self.statistics)
        num_over = self.statistics.num_over() if self.catalog.first_step else 0
        least = min((values[e] for e in experts if e >= num_over), default=0)
        costs = {int(e): 0.0 if e < num_over else values[e] - least for e in experts}
        return costs | {e: -1 for e in self.apart if e in costs}
