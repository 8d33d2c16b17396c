"""How much every expert suffers at every width, measured once for many plans: ``profile_model``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgemoe.calib.widths import Profile, make_profile
from edgemoe.calib.widths.ladder import UNIFORM
from edgemoe.calib.widths.sensitivity import (
    measured_alone,
    output_errors,
    predicted_divergence,
    rank_correlation,
    seconds,
    super_experts,
)
from edgemoe.errors import RequestError
from edgemoe.executors import find_executor
from edgemoe.progress import ShowSteps, unseen
from edgemoe.workflows.measuring import MeasuringOptions
from edgemoe.workflows.outputs import refuse_folder_of

METHODS = ("fast", "exact")


@dataclass(frozen=True)
class ProfileOptions(MeasuringOptions):
    """How a profile is made; checked when it is made. ``method``: "fast", output errors of every expert and
    one run for each layer; or "exact", one run for every expert as well.

    Raises:
        RequestError: an option has no such value.
    """

    method: str = "fast"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise RequestError(f"no method {self.method!r}; choose one of {', '.join(METHODS)}")
        super().__post_init__()


@dataclass(frozen=True)
class ProfileReport:
    """What was measured. Experts are named "layer.expert"; times in seconds of all workers together.

    ``rank_correlation`` says how alike "fast" and "exact" order the experts; None where only "fast" was asked
    for.
    """

    profile: str
    num_experts: int
    num_tokens: int
    super_experts: tuple[str, ...]
    fast_s: float
    exact_s: float | None = None
    rank_correlation: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, without what was not asked for."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def profile_model(
    source: str | Path,
    texts: Mapping[str, str],
    out: str | Path,
    options: ProfileOptions | None = None,
    *,
    steps: ShowSteps = unseen,
) -> ProfileReport:
    """Measure how much every expert of a checkpoint matters on texts (contents by name), in the folder
    ``out``.

    An interrupted call goes on, with any executor.

    Raises:
        CheckpointError: the checkpoint is damaged or not supported.
        ConversionError: the disk is full, or another process works on the profile.
        RequestError: the texts are too short, or ``out`` holds something else.
        WorkerError: a worker of the executor failed.
    """
    options, source, out = options or ProfileOptions(), Path(source), Path(out)
    refuse_folder_of(out)
    executor = find_executor(options.executor)
    with make_profile(source, out, texts, options.calibration(), steps, executor) as found:
        found.find_fast()
        if options.method == "exact":
            found.find_exact()
        return _report(found, str(out), is_exact=options.method == "exact")


def _report(profile: Profile, out: str, *, is_exact: bool) -> ProfileReport:
    keys, values = profile.ladder.keys, profile.found
    report = ProfileReport(
        profile=out,
        num_experts=len(keys),
        num_tokens=sum(map(len, profile.windows)),
        super_experts=tuple(f"{layer}.{expert}" for layer, expert in super_experts(keys, values)),
        fast_s=seconds(values, "fast"),
    )
    if not is_exact:
        return report
    predicted = predicted_divergence(output_errors(keys, values), values)
    alone = measured_alone(keys, values)
    fast = [predicted[key][UNIFORM[0]] for key in keys]
    correlation = rank_correlation(fast, [alone[key] for key in keys])
    return replace(report, exact_s=seconds(values, "exact"), rank_correlation=correlation)
