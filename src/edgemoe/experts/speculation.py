"""Reading ahead: which forecast experts are worth starting to read now; see ``native.speculation``."""

from __future__ import annotations

from edgemoe import native
from edgemoe.experts.catalog import Catalog
from edgemoe.experts.predictors import NoPredictor, Predictor
from edgemoe.experts.residency import Residency
from edgemoe.native import LayerPace, Reads, Speculation


def speculate(
    catalog: Catalog, residency: Residency, reads: Reads, predictor: Predictor, top_k: int, pace: LayerPace
) -> Speculation | None:
    """What reads ahead by a predictor; None where it is one that says nothing."""
    if isinstance(predictor, NoPredictor):
        return None
    return Speculation(
        *(residency, native.compiled_reads(reads), native.compiled_predictor(predictor), pace),
        top_k=top_k,
        record_sizes=catalog.num_bytes.tolist(),
    )
