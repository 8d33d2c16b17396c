"""Reading ahead: which forecast experts are worth starting to read now; see ``native.speculation``."""

from __future__ import annotations

from dataclasses import dataclass

from edgemoe import native
from edgemoe.experts.catalog import Catalog
from edgemoe.experts.predictors import NoPredictor, Predictor
from edgemoe.experts.residency import Residency
from edgemoe.native import LayerPace, Reads, Speculation


@dataclass(frozen=True, slots=True)
class ForecastRecord:
    """How the forecasts for single tokens at one position held. K experts are chosen."""

    num_forecasts: int
    num_chosen: list[int]  # how many of the experts ranked r were chosen, for 2 K ranks

    def recall(self, num_ranks: int) -> float:
        """Share of the chosen experts that were among the first ranks; 0 without a forecast."""
        return sum(self.num_chosen[:num_ranks]) / max(1, self.num_forecasts * len(self.num_chosen) // 2)


def forecast_records(speculation: Speculation, distance: int) -> list[ForecastRecord]:
    """One record per layer with experts: of the predictor (0), or of rehearsals so many layers earlier."""
    return [ForecastRecord(*record) for record in speculation.records(distance)]


def speculate(
    catalog: Catalog,
    residency: Residency,
    reads: Reads,
    predictor: Predictor,
    top_k: int,
    pace: LayerPace,
    max_rehearsed: int = native.MAX_REHEARSED,
) -> Speculation | None:
    """What reads ahead by a predictor; None where it is one that says nothing."""
    if isinstance(predictor, NoPredictor):
        return None
    return Speculation(
        residency,
        native.compiled_reads(reads),
        native.compiled_predictor(predictor),
        pace,
        top_k=top_k,
        record_sizes=catalog.num_bytes.tolist(),
        max_rehearsed=max_rehearsed,
    )
