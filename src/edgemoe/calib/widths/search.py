"""From a profile and more text to a plan of bit widths: proposal, measurement, choice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgemoe.calib.widths.calibration import MIN_WINDOWS, Window
from edgemoe.calib.widths.ladder import UNIFORM, Widths
from edgemoe.calib.widths.planning import Choice, Costs, Sizes, by_rank, knapsack, smallest_within
from edgemoe.calib.widths.profile import Profile
from edgemoe.calib.widths.quality import PERPLEXITY, Metric, Quality
from edgemoe.calib.widths.sensitivity import (
    measured_alone,
    output_errors,
    predicted_divergence,
    scaled_to,
    super_experts,
)
from edgemoe.engine.bootstrap import CONFIDENCE
from edgemoe.errors import RequestError
from edgemoe.quant import BitPlan, ExpertFormats
from edgemoe.store import ExpertKey

METHODS = ("knapsack", "exact", "paper")
# How many a search within a tolerance mostly measures, for the progress bar.
_TYPICAL_PLANS = 6

Plan = Choice[ExpertFormats]
Proposal = Callable[[int], Widths]


@dataclass(frozen=True)
class Goal:
    """What a plan is to reach: a tolerance of the metric's loss, or a size of all experts."""

    tolerance: float | None = None
    num_bytes: int | None = None
    bits_per_weight: float | None = None


def held_out_windows(windows: Sequence[Window], seen: Sequence[Window], length: int) -> list[Window]:
    """Windows of so many tokens that a profile has not ``seen``.

    Raises:
        RequestError: they are too few to measure plans on.
    """
    known = {tuple(window) for window in seen}
    found = [window for window in windows if tuple(window) not in known]
    if len(found) < MIN_WINDOWS:
        raise RequestError(
            f"planning needs {MIN_WINDOWS} windows of {length} tokens that the profile has not seen;"
            f" this text has {len(found)}, give more or a smaller --window"
        )
    return found


class PlanSearch:
    """Plans of one profile, measured on text that the profile has not seen."""

    def __init__(self, profile: Profile, held_out: Sequence[Window], metric: Metric = PERPLEXITY) -> None:
        """Windows that the profile was calibrated on are left out.

        Raises:
            RequestError: too few windows are left.
        """
        self._held_out = held_out_windows(held_out, profile.windows, profile.options.window)
        self.profile = profile
        self._metric = metric
        self._measured: dict[tuple[tuple[ExpertKey, ExpertFormats], ...], Quality] = {}
        self._proposals: dict[str, tuple[Proposal, Sizes[ExpertFormats]]] = {}

    def measure(self, widths: Widths, windows: Sequence[Window] | None = None) -> Quality:
        """Quality of any widths, on the held-out windows unless others are given."""
        if windows is not None:
            return self.profile.measure(widths, windows)
        # Searches for several tolerances begin with the same plans.
        chosen = tuple(sorted(widths.items(), key=lambda item: item[0]))
        if chosen not in self._measured:
            self._measured[chosen] = self.profile.measure(widths, self._held_out)
        return self._measured[chosen]

    def choose(self, goal: Goal, method: str = "knapsack") -> Plan:
        """Widths that reach a goal.

        Raises:
            PlanError: nothing does.
            RequestError: no such method.
        """
        propose, sizes = self.proposals(method)
        with self.profile.steps("measuring plans", "plans") as advance:
            done = 0
            expected = 1 if goal.tolerance is None else _TYPICAL_PLANS

            def measure(widths: Widths) -> Quality:
                nonlocal done
                quality = self.measure(widths)
                done += 1
                advance(done, max(done, expected))
                return quality

            if goal.tolerance is not None:
                found = smallest_within(goal.tolerance, propose, sizes, measure, self._metric)
            else:
                widths = propose(self._goal_bytes(goal))
                num_bytes = sum(sizes[key][option] for key, option in widths.items())
                found = Choice(widths, num_bytes, measure(widths))
            advance(done, done)
            return found

    def bit_plan(self, choice: Plan, method: str, text: str) -> BitPlan:
        """The plan to convert with; its origin says what was measured, on what."""
        low, high = choice.quality.interval()
        default = Counter(choice.widths.values()).most_common(1)[0][0]
        origin = {
            "kind": method,
            "text": text,
            "num_tokens": int(choice.quality.num_tokens.sum()),
            "perplexity_increase": choice.quality.increase,
            "interval": [low, high],
            "confidence": CONFIDENCE,
            "divergence": choice.quality.mean_divergence,
            "accuracy_loss": choice.quality.accuracy_loss,
            "metric": self._metric.name,
            "bits_per_weight": self.profile.ladder.bits_per_weight(choice.widths),
            "inputs": self.profile.inputs.identity,
        }
        overrides = {key: option for key, option in choice.widths.items() if option != default}
        return BitPlan(default, self.profile.options.dense_format, overrides, origin)

    def proposals(self, method: str) -> tuple[Proposal, Sizes[ExpertFormats]]:
        """Widths for any number of bytes, by a method, and the sizes of what it chooses among.

        Raises:
            RequestError: no such method.
        """
        if method not in METHODS:
            raise RequestError(f"no method {method!r}; choose one of {', '.join(METHODS)}")
        if method not in self._proposals:
            makers = {"knapsack": self._knapsack, "exact": self._exact, "paper": self._paper}
            self._proposals[method] = makers[method]()
        return self._proposals[method]

    def _goal_bytes(self, goal: Goal) -> int:
        if goal.num_bytes is not None:
            return goal.num_bytes
        assert goal.bits_per_weight is not None
        ladder = self.profile.ladder
        spec = ladder.spec
        num_weights = sum(spec.num_expert_weights(layer) for layer, _ in ladder.keys)
        return int(goal.bits_per_weight * num_weights / 8)

    def _knapsack(self) -> tuple[Proposal, Sizes[ExpertFormats]]:
        self.profile.find_fast()
        ladder, found = self.profile.ladder, self.profile.found
        return self._cheapest(predicted_divergence(output_errors(ladder.keys, found), found))

    def _exact(self) -> tuple[Proposal, Sizes[ExpertFormats]]:
        self.profile.find_fast()
        self.profile.find_exact()
        ladder, found = self.profile.ladder, self.profile.found
        return self._cheapest(
            scaled_to(measured_alone(ladder.keys, found), output_errors(ladder.keys, found))
        )

    def _cheapest(self, costs: Costs[ExpertFormats]) -> tuple[Proposal, Sizes[ExpertFormats]]:
        """By knapsack; super experts stay at the highest width."""
        ladder = self.profile.ladder
        pinned = set(super_experts(ladder.keys, self.profile.found))

        def allowed(table: Mapping[ExpertKey, Mapping[ExpertFormats, Any]]) -> dict[ExpertKey, Any]:
            highest = UNIFORM[-1]
            return {key: {highest: row[highest]} if key in pinned else row for key, row in table.items()}

        costs, sizes = allowed(costs), allowed(ladder.num_bytes)
        return lambda budget: knapsack(costs, sizes, budget), sizes

    def _paper(self) -> tuple[Proposal, Sizes[ExpertFormats]]:
        self.profile.find_exact()
        ladder = self.profile.ladder
        sizes = ladder.num_bytes
        return by_rank(measured_alone(ladder.keys, self.profile.found), sizes, UNIFORM), sizes
