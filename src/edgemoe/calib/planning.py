"""Choosing widths: the least predicted loss within a size, the smallest size within a measured tolerance."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgemoe.calib.ladder import WIDTHS, Ladder, Widths
from edgemoe.calib.quality import Quality
from edgemoe.calib.sensitivity import Costs
from edgemoe.errors import PlanError
from edgemoe.store import ExpertKey
from edgemoe.units import ceil_size, format_size

Sizes = Mapping[ExpertKey, Mapping[str, int]]
Measure = Callable[[Widths], Quality]
# Search for a tolerance ends when size is known to this share.
PRECISION = 0.01
MAX_MEASUREMENTS = 10


@dataclass(frozen=True)
class Choice:
    """Widths of all experts, their bytes, and what was measured of them."""

    widths: Widths
    num_bytes: int
    quality: Quality


def knapsack(costs: Costs, sizes: Sizes, budget_bytes: int) -> dict[ExpertKey, str]:
    """Widths of least summed cost within a size.

    Each expert climbs its lower convex hull of cost against bytes; the step that saves most per byte comes
    first. Optimal but for the last step (Everett 1963; a multiple-choice knapsack).

    Raises:
        PlanError: even the lowest width of all is larger.
    """
    hulls = {key: _hull(costs[key], sizes[key]) for key in costs}
    chosen = {key: hull[0][0] for key, hull in hulls.items()}
    used = sum(hull[0][1] for hull in hulls.values())
    if used > budget_bytes:
        raise PlanError(
            f"{format_size(budget_bytes)} are too little: at 2 bits the experts take {ceil_size(used)}"
        )
    steps = [(-_gain(hull, 0), key, 0) for key, hull in hulls.items() if len(hull) > 1]
    heapq.heapify(steps)
    while steps:
        _, key, index = heapq.heappop(steps)
        hull = hulls[key]
        extra = hull[index + 1][1] - hull[index][1]
        if used + extra > budget_bytes:
            continue
        used += extra
        chosen[key] = hull[index + 1][0]
        if index + 2 < len(hull):
            heapq.heappush(steps, (-_gain(hull, index + 1), key, index + 1))
    return chosen


def _hull(costs: Mapping[str, float], sizes: Mapping[str, int]) -> list[tuple[str, int, float]]:
    """(width, bytes, cost) on the lower convex hull, from the smallest on, each cheaper than the last."""
    points: list[tuple[str, int, float]] = []
    # Small records are padded to the same size whatever their width: then the cheapest comes first.
    for name in sorted(WIDTHS, key=lambda n: (sizes[n], costs[n])):
        point = (name, sizes[name], costs[name])
        if points and point[2] >= points[-1][2]:
            continue
        while len(points) > 1 and _slope(points[-2], points[-1]) <= _slope(points[-2], point):
            points.pop()
        points.append(point)
    return points


def _slope(a: tuple[str, int, float], b: tuple[str, int, float]) -> float:
    return (a[2] - b[2]) / (b[1] - a[1])


def _gain(hull: Sequence[tuple[str, int, float]], index: int) -> float:
    return _slope(hull[index], hull[index + 1])


def smallest_within(
    tolerance: float, propose: Callable[[int], Widths], sizes: Sizes, measure: Measure
) -> Choice:
    """The smallest proposal whose increase of perplexity stays within the tolerance, with confidence.

    ``propose(bytes)`` gives the widths for a size; the upper end of the interval of what is measured must
    not exceed the tolerance.

    Raises:
        PlanError: the highest widths do not meet it; the message says what they reach.
    """
    low = sum(row[WIDTHS[0]] for row in sizes.values())
    high = sum(row[WIDTHS[-1]] for row in sizes.values())
    best = _choice(propose(high), sizes, measure)
    if best.quality.interval()[1] > tolerance:
        raise PlanError(
            f"a tolerance of {tolerance:.2%} cannot be met: with all experts at the highest width perplexity"
            f" rises by up to {best.quality.interval()[1]:.2%} on this text; ask for more, or give more text"
        )
    smallest = _choice(propose(low), sizes, measure)
    if smallest.quality.interval()[1] <= tolerance:
        return smallest
    for _ in range(MAX_MEASUREMENTS):
        if high - low <= PRECISION * high:
            break
        # Loss falls steeply with size at first: the geometric middle.
        middle = int((low * high) ** 0.5)
        choice = _choice(propose(middle), sizes, measure)
        if choice.quality.interval()[1] <= tolerance:
            best, high = choice, middle
        else:
            low = middle
    return best


def _choice(widths: Widths, sizes: Sizes, measure: Measure) -> Choice:
    return Choice(widths, sum(sizes[key][name] for key, name in widths.items()), measure(widths))


def by_rank(importance: Mapping[ExpertKey, float], ladder: Ladder) -> Callable[[int], Widths]:
    """The paper's plans: the most important experts one width up, as many as a size allows.

    Between two neighbouring uniform widths all experts have the lower one but the most important, which
    have the upper one.
    """
    order = sorted(importance, key=lambda key: -importance[key])
    sizes = ladder.num_bytes

    def propose(budget_bytes: int) -> Widths:
        totals = {name: sum(sizes[key][name] for key in order) for name in WIDTHS}
        fitting = [name for name in WIDTHS if totals[name] <= budget_bytes]
        if not fitting:
            raise PlanError(
                f"{format_size(budget_bytes)} are too little: at 2 bits the experts take"
                f" {ceil_size(totals[WIDTHS[0]])}"
            )
        lower = fitting[-1]
        upper = WIDTHS[min(len(fitting), len(WIDTHS) - 1)]
        widths = dict.fromkeys(order, lower)
        left = budget_bytes - totals[lower]
        for key in order:
            extra = sizes[key][upper] - sizes[key][lower]
            if extra > left:
                break
            widths[key] = upper
            left -= extra
        return widths

    return propose
