"""Choosing widths: the least predicted loss within a size, the smallest size within a measured tolerance."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from edgemoe.calib.widths.quality import PERPLEXITY, Metric, Quality
from edgemoe.errors import PlanError
from edgemoe.store import ExpertKey
from edgemoe.units import ceil_size, format_size

# What an expert can have: its formats, or anything that stands for them.
Option = TypeVar("Option", bound=Hashable)
Sizes = Mapping[ExpertKey, Mapping[Option, int]]
Costs = Mapping[ExpertKey, Mapping[Option, float]]
Choices = Mapping[ExpertKey, Option]
# Search for a tolerance ends when size is known to this share.
PRECISION = 0.01
MAX_MEASUREMENTS = 10


@dataclass(frozen=True)
class Choice(Generic[Option]):
    """Widths of all experts, their bytes, and what was measured of them."""

    widths: Choices[Option]
    num_bytes: int
    quality: Quality


def knapsack(costs: Costs[Option], sizes: Sizes[Option], budget_bytes: int) -> dict[ExpertKey, Option]:
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


def _hull(costs: Mapping[Option, float], sizes: Mapping[Option, int]) -> list[tuple[Option, int, float]]:
    """(option, bytes, cost) on the lower convex hull, from the smallest on, each cheaper than the last."""
    points: list[tuple[Option, int, float]] = []
    # Small records are padded to the same size whatever their width: then the cheapest comes first.
    for name in sorted(costs, key=lambda n: (sizes[n], costs[n])):
        point = (name, sizes[name], costs[name])
        if points and point[2] >= points[-1][2]:
            continue
        while len(points) > 1 and _slope(points[-2], points[-1]) <= _slope(points[-2], point):
            points.pop()
        points.append(point)
    return points


def _slope(a: tuple[Option, int, float], b: tuple[Option, int, float]) -> float:
    return (a[2] - b[2]) / (b[1] - a[1])


def _gain(hull: Sequence[tuple[Option, int, float]], index: int) -> float:
    return _slope(hull[index], hull[index + 1])


def smallest_within(
    tolerance: float,
    propose: Callable[[int], Choices[Option]],
    sizes: Sizes[Option],
    measure: Callable[[Choices[Option]], Quality],
    metric: Metric = PERPLEXITY,
) -> Choice[Option]:
    """The smallest proposal whose loss stays within the tolerance, with confidence.

    ``propose(bytes)`` gives the widths for a size; the upper bound of what is measured must not exceed the
    tolerance. The smallest is measured first: what it shows of the text makes the other bounds tighter.

    Raises:
        PlanError: the highest widths do not meet it; the message says what they reach.
    """
    low = sum(min(row.values()) for row in sizes.values())
    high = sum(max(row.values()) for row in sizes.values())
    smallest = _choice(propose(low), sizes, measure)
    if metric.bound(smallest.quality) <= tolerance:
        return smallest
    best = _choice(propose(high), sizes, measure)
    reached = metric.bound(best.quality, smallest.quality)
    if reached > tolerance:
        raise PlanError(
            f"a tolerance of {metric.show(tolerance)} cannot be met: with all experts at the highest width"
            f" {metric.description} by up to {metric.show(reached)} on this text; ask for more, or give more"
            " text"
        )
    for _ in range(MAX_MEASUREMENTS):
        if high - low <= PRECISION * high:
            break
        # Loss falls steeply with size at first: the geometric middle.
        middle = int((low * high) ** 0.5)
        choice = _choice(propose(middle), sizes, measure)
        if metric.bound(choice.quality, smallest.quality) <= tolerance:
            best, high = choice, middle
        else:
            low = middle
    return best


def _choice(
    widths: Choices[Option], sizes: Sizes[Option], measure: Callable[[Choices[Option]], Quality]
) -> Choice[Option]:
    return Choice(widths, sum(sizes[key][name] for key, name in widths.items()), measure(widths))


def by_rank(
    importance: Mapping[ExpertKey, float], sizes: Sizes[Option], widths: Sequence[Option]
) -> Callable[[int], dict[ExpertKey, Option]]:
    """The paper's plans: the most important experts one width up, as many as a size allows.

    Between two neighbours of ``widths``, ascending, all experts have the lower one but the most important,
    which have the upper one. What is returned raises PlanError for bytes that are too few for any plan.
    """
    order = sorted(importance, key=lambda key: -importance[key])

    def propose(budget_bytes: int) -> dict[ExpertKey, Option]:
        totals = {name: sum(sizes[key][name] for key in order) for name in widths}
        fitting = [name for name in widths if totals[name] <= budget_bytes]
        if not fitting:
            raise PlanError(
                f"{format_size(budget_bytes)} are too little: at 2 bits the experts take"
                f" {ceil_size(totals[widths[0]])}"
            )
        lower = fitting[-1]
        upper = widths[min(len(fitting), len(widths) - 1)]
        chosen = dict.fromkeys(order, lower)
        left = budget_bytes - totals[lower]
        for key in order:
            extra = sizes[key][upper] - sizes[key][lower]
            if extra > left:
                break
            chosen[key] = upper
            left -= extra
        return chosen

    return propose
