"""From a checkpoint and a text to a plan of bit widths: ladder, trace, sensitivity, choice, measurement."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgemoe.calib.ladder import REFERENCE, WIDTHS, Ladder, Widths
from edgemoe.calib.planning import Choice, by_rank, knapsack, smallest_within
from edgemoe.calib.quality import CONFIDENCE, Quality, compare
from edgemoe.calib.sensitivity import (
    Costs,
    measured_divergence,
    output_errors,
    predicted_divergence,
    scaled_to,
)
from edgemoe.calib.trace import record_trace
from edgemoe.engine.loading import Engine
from edgemoe.errors import RequestError
from edgemoe.quant import BitPlan, ExpertFormats
from edgemoe.store import ExpertKey

METHODS = ("knapsack", "exact", "paper")
# Of the windows of text: those that choose widths, and those that the result is measured on.
CALIBRATION_SHARE = 0.5
# Windows for one measurement of a layer or of an expert; the more there are, the finer.
PROBE_WINDOWS = 8
MIN_WINDOWS = 8


class Steps(Protocol):
    """Shows progress: a context manager for each step gives the function to tell of it."""

    def __call__(self, description: str, unit: str) -> Any:
        """A context manager that yields ``advance(done, total)``."""
        ...


@dataclass(frozen=True)
class Goal:
    """What a plan is to reach: a tolerance of the perplexity's increase, or a size of all experts."""

    tolerance: float | None = None
    num_bytes: int | None = None
    bits_per_weight: float | None = None


class PlanSearch:
    """One checkpoint and one text. Costly steps are done once, however many goals are asked for.

    Close it, best by ``with``.
    """

    def __init__(
        self,
        source: Path,
        work: Path,
        encode: Callable[[Path], Sequence[int]],
        steps: Steps,
        dense_format: str = "q8",
        window: int = 512,
        budget_bytes: int | None = None,
    ) -> None:
        """``encode`` gives the text's tokens once the tokenizer's folder is known; ``work`` keeps stores.

        Raises:
            CheckpointError, ConversionError: the checkpoint cannot be converted.
            RequestError: the text is too short.
        """
        self._steps = steps
        with steps("converting to every width", "widths") as advance:
            self.ladder = Ladder(source, work, dense_format, advance)
        self._dense_format = dense_format
        self._work = work
        token_ids = encode(work / REFERENCE)
        windows = [token_ids[i : i + window] for i in range(0, len(token_ids) - window + 1, window)]
        if len(windows) < MIN_WINDOWS:
            raise RequestError(
                f"the text has {len(token_ids)} tokens; planning needs {MIN_WINDOWS * window} or more"
            )
        # Alternating, so that a text that changes on the way is in both parts.
        count = max(PROBE_WINDOWS // 2, int(len(windows) * CALIBRATION_SHARE))
        order = [*windows[::2], *windows[1::2]]
        self._calibration, self._held_out = order[:count], order[count:]
        self._reference: Engine = self.ladder.load({}, window, budget_bytes)
        self._budget_bytes = budget_bytes
        self._proposals: dict[str, Callable[[int], Widths]] = {}

    def __enter__(self) -> PlanSearch:
        return self

    def __exit__(self, *_: object) -> None:
        self._reference.experts.close()
        self.ladder.__exit__()

    def measure(self, widths: Widths, windows: Sequence[Sequence[int]] | None = None) -> Quality:
        """Quality of any widths, on the held-out windows unless others are given."""
        context = self._reference.memory.context
        engine = self.ladder.load(widths, context, self._budget_bytes)
        try:
            return compare(self._reference, engine, windows or self._held_out)
        finally:
            engine.experts.close()

    def choose(self, goal: Goal, method: str = "knapsack") -> Choice:
        """Widths that reach a goal.

        Raises:
            PlanError: nothing does.
            RequestError: no such method.
        """
        if method not in METHODS:
            raise RequestError(f"no method {method!r}; choose one of {', '.join(METHODS)}")
        propose, sizes = self._proposal(method), self.ladder.num_bytes
        with self._steps("measuring plans", "plans") as advance:
            done = 0

            def measure(widths: Widths) -> Quality:
                nonlocal done
                done += 1
                advance(done, max(done, 6))
                return self.measure(widths)

            if goal.tolerance is not None:
                return smallest_within(goal.tolerance, propose, sizes, measure)
            widths = propose(self._goal_bytes(goal))
            return Choice(widths, sum(sizes[k][name] for k, name in widths.items()), measure(widths))

    def bit_plan(self, choice: Choice, method: str, text: str) -> BitPlan:
        """The plan to convert with; its origin says what was measured, on what."""
        low, high = choice.quality.interval()
        names = list(choice.widths.values())
        default = max(WIDTHS, key=names.count)
        origin = {
            "kind": method,
            "text": text,
            "num_tokens": int(choice.quality.num_tokens.sum()),
            "perplexity_increase": choice.quality.increase,
            "interval": [low, high],
            "confidence": CONFIDENCE,
            "divergence": choice.quality.mean_divergence,
            "bits_per_weight": self.ladder.bits_per_weight(choice.widths),
        }
        overrides = {k: ExpertFormats.uniform(n) for k, n in choice.widths.items() if n != default}
        return BitPlan(ExpertFormats.uniform(default), self._dense_format, overrides, origin)

    def _goal_bytes(self, goal: Goal) -> int:
        if goal.num_bytes is not None:
            return goal.num_bytes
        assert goal.bits_per_weight is not None
        spec = self.ladder.spec
        num_weights = sum(spec.num_expert_weights(layer) for layer, _ in self.ladder.keys)
        return int(goal.bits_per_weight * num_weights / 8)

    def _proposal(self, method: str) -> Callable[[int], Widths]:
        if method not in self._proposals:
            makers = {"knapsack": self._knapsack, "exact": self._exact, "paper": self._paper}
            self._proposals[method] = makers[method]()
        return self._proposals[method]

    def _output_errors(self) -> Costs:
        with self._steps("comparing outputs", "experts") as advance, self._trace() as trace:
            return output_errors(trace, self.ladder, advance)

    def _knapsack(self) -> Callable[[int], Widths]:
        errors = self._output_errors()
        probes = self._calibration[:PROBE_WINDOWS]
        with self._steps("weighing layers", "layers") as advance:
            costs = predicted_divergence(errors, self.ladder, self._reference, probes, advance)
        return lambda budget: knapsack(costs, self.ladder.num_bytes, budget)

    def _exact(self) -> Callable[[int], Widths]:
        costs = scaled_to(self._every_expert_alone(REFERENCE), self._output_errors())
        return lambda budget: knapsack(costs, self.ladder.num_bytes, budget)

    def _paper(self) -> Callable[[int], Widths]:
        return by_rank(self._every_expert_alone(WIDTHS[-1]), self.ladder)

    def _every_expert_alone(self, upper: str) -> Mapping[ExpertKey, float]:
        probes = self._calibration[:PROBE_WINDOWS]
        with self._steps("measuring every expert alone", "experts") as advance:
            return measured_divergence(self.ladder, self._reference, probes, upper, advance)

    @contextmanager
    def _trace(self) -> Any:
        folder = self._work / "trace"
        shutil.rmtree(folder, ignore_errors=True)
        texts = {str(i): window for i, window in enumerate(self._calibration)}
        try:
            yield record_trace(self._reference, texts, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
