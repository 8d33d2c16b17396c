"""What a store takes of a budget besides its weights and texts: forecasts, and reads under way."""

from __future__ import annotations

from dataclasses import replace

from edgemoe.engine.memory import JUST_THE_MODEL, MemoryNeeds
from edgemoe.engine.prediction import predictor_num_bytes
from edgemoe.experts import DEFAULT_POLICY
from edgemoe.models import ModelSpec
from edgemoe.store import Store


def needs_of(
    spec: ModelSpec,
    store: Store,
    needs: MemoryNeeds = JUST_THE_MODEL,
    *,
    predictor: str = "auto",
    policy: str = DEFAULT_POLICY,
) -> MemoryNeeds:
    """``needs`` with what a store takes: the same whether it is loaded or only planned for.

    Raises:
        RequestError: no such predictor, or nothing was fitted for the store yet.
    """
    return replace(
        needs,
        predictor_bytes=predictor_num_bytes(spec, store, predictor, policy),
        reader_bytes=store.depths[-1] * store.reader_num_bytes,
    )
