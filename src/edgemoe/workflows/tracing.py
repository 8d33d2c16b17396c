"""Recording what routers do on a text, and learning from it: ``trace_store`` and ``fit_store``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgemoe.api import load
from edgemoe.calib.routing import FitReport, fit_num_bytes, fit_routing
from edgemoe.calib.text import share_tokens
from edgemoe.calib.trace import Trace, read_trace, record_trace, refuse_existing
from edgemoe.engine.machine import available_memory_bytes
from edgemoe.engine.stored_weights import check_store, read_dense_weights
from edgemoe.errors import RequestError
from edgemoe.experts import save_fitted
from edgemoe.models import read_spec
from edgemoe.progress import ShowSteps, unseen
from edgemoe.store import open_store
from edgemoe.store.format import MANIFEST_FILE
from edgemoe.units import format_size
from edgemoe.workflows.measuring import check_text_options, window_within
from edgemoe.workflows.outputs import refuse_folder_of

DEFAULT_TOKENS = 16384


@dataclass(frozen=True)
class TraceOptions:
    """Of all texts ``max_tokens`` are used, of which the model sees ``window`` at once (by default 512, or
    its context). ``memory`` and ``num_threads`` as in ``edgemoe.load``. Checked when it is made.

    Raises:
        RequestError: a number of tokens is none.
    """

    max_tokens: int = DEFAULT_TOKENS
    window: int | None = None
    memory: str | int | None = None
    num_threads: int | None = None

    def __post_init__(self) -> None:
        check_text_options(self.max_tokens, self.window)


def trace_store(
    store: str | Path,
    texts: Mapping[str, str],
    out: str | Path,
    options: TraceOptions | None = None,
    *,
    steps: ShowSteps = unseen,
) -> Trace:
    """Write down, in the new folder ``out``, which experts texts (contents by name) activate and what they
    are fed.

    Raises:
        BudgetError, StoreError: as ``edgemoe.load``.
        RequestError: ``out`` exists, or a text is too short.
    """
    options, out = options or TraceOptions(), Path(out)
    open_store(Path(store), checks_attached=False)  # a GGUF file has no place for what is learnt from a trace
    refuse_existing(out)
    refuse_folder_of(out)
    context = window_within(store, options.window)
    with load(
        store, options.memory, context=context, num_threads=options.num_threads, predictor="none"
    ) as model:
        token_ids = share_tokens(model.tokenizer, texts, options.max_tokens)
        with steps("tracing", "tokens") as advance:
            return record_trace(model.engine, token_ids, out, advance)


def fit_store(trace: str | Path, store: str | Path, *, steps: ShowSteps = unseen) -> FitReport:
    """Learn from a trace of a store which experts come next; the store keeps it, and ``load`` reads ahead by
    it.

    Raises:
        StoreError: the store cannot be used.
        RequestError: nothing can be written to its folder, or there is too little memory.
        TraceError: the trace is damaged, or of another store.
    """
    opened = open_store(Path(store), checks_attached=False)
    refuse_folder_of(opened.path / MANIFEST_FILE)  # now, rather than when all is learnt
    spec = read_spec(opened.config)
    check_store(spec, opened)
    traced = read_trace(Path(trace))
    dense_num_bytes = sum(entry.num_bytes for entry in opened.manifest.dense.values())
    _refuse_beyond_memory(fit_num_bytes(traced.of_steps()) + dense_num_bytes)
    with steps("fitting", "layers") as advance:
        fitted, report = fit_routing(traced, spec, read_dense_weights(spec, opened), advance)
    save_fitted(opened, fitted)
    return report


def _refuse_beyond_memory(needed: int) -> None:
    """Raises RequestError where fitting would be killed for what it takes."""
    available, where = available_memory_bytes()
    if needed > available:
        raise RequestError(
            f"fitting takes {format_size(needed)}, and {format_size(available)} is {where}; trace fewer"
            " tokens (edgemoe trace --max-tokens), or fit where there is more"
        )
