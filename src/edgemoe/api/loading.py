"""Loading a store, and the number of threads that compute."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from edgemoe import arguments, native
from edgemoe.api.model import Model
from edgemoe.engine.drafting import DRAFTS, STORE
from edgemoe.engine.loading import LoadOptions, load_engine
from edgemoe.errors import NotAStoreError, RequestError
from edgemoe.experts import DEFAULT_POLICY
from edgemoe.store import Store, find_device, open_store
from edgemoe.units import parse_size


def load(
    store: str | Path,
    memory: str | int | None = None,
    *,
    context: int | None = None,
    num_threads: int | None = None,
    kv_format: str = "f16",
    cache: str | int | None = None,
    policy: str = DEFAULT_POLICY,
    predictor: str = "auto",
    reader: str = "auto",
    verify: str = "always",
    device: str | None = None,
    num_texts: int = 1,
    tier: str | int | None = None,
    draft: str | Path = "none",
    has_grammars: bool = False,
) -> Model:
    """Load a store so that the whole process stays within ``memory``.

    Args:
        store: a folder made by ``edgemoe convert``, the name of a store in the library, the URL of a store,
            such as "s3://bucket/store", or a GGUF file, which is run as it is.
        memory: cap on the whole process, such as "2GiB", or bytes. Default: what is free, minus a margin.
        context: longest prompt plus answer, in tokens. Default: 4096, or the model's most if that is less.
            For a model with an encoder: longest prompt, and longest answer. Default: 512.
        num_threads: threads that compute, for the whole process. Default: one per core, fewer under a quota
            of processor time.
        kv_format: "f16" or "f32" keys and values.
        cache: cap on the expert cache within the budget. Default: all that the budget leaves.
        policy: which expert leaves the cache: "forecast" ("edgemoe" until `edgemoe fit` has run on the
            store), "edgemoe", "edgemoe-printed", "lfu", "lfru" or "lru".
        predictor: which experts are read ahead: "none"; "gate", by the next layers' routers; or, once
            `edgemoe fit` has run on the store, "table", "gate-fitted" or "hybrid". "auto" takes the best one
            that the store has.
        reader: "ring" (direct reads by io_uring), "direct" (on worker threads), "buffered", or "auto": the
            first of these that kernel and file system allow.
        verify: compare experts with their checksums "always" when they are read, the "first" time, or
            "never".
        device: slow storage down to that of "jetson-tx2-ssd", "jetson-tx2-usb", "rpi4-sd", "nvme" or
            "network".
        num_texts: whole contexts to keep room for. Open texts share that room, so more short ones fit. What
            an ended text has computed is kept for others that begin alike. A text without room waits.
        tier: for a store at a URL, how much of this disk may keep experts once they were read; 0 keeps none.
            Default: room for all experts, at most a quarter of the free space.
        draft: guess the next tokens and check several in one step, while measurement says that this is
            faster; it never changes a token. "text" guesses what followed the same words earlier in the text,
            "mtp" uses the store's layer for further tokens, "none" does not guess. "auto" is "mtp" if the
            store has such a layer and memory holds it and all experts; else "text", if the model allows it.
            A small store with the same tokenizer, given like ``store``, guesses what it would write; all of
            it lies in memory, within the budget.
        has_grammars: keep room for the server's grammars, 1,200 bytes for each token of the vocabulary.

    Raises:
        NotAStoreError, StoreVersionError, CorruptStoreError: the store cannot be used.
        BudgetError: the budget cannot work; the message names the smallest that can.
        RequestError: an option has no such value.
    """
    path = _path_of(store)
    draft_name, draft_store = find_draft(draft)
    options = LoadOptions(
        budget_bytes=_size(memory),
        context=None if context is None else arguments.whole("context", context, 1),
        kv_format=kv_format,
        cache_bytes=_size(cache),
        policy=policy,
        reader=reader,
        verify=verify,
        predictor=predictor,
        device=None if device is None else find_device(device),
        num_texts=arguments.whole("num_texts", num_texts, 1),
        tier_bytes=_size(tier),
        draft=draft_name,
        draft_store=draft_store,
        has_grammars=has_grammars,
    )
    set_num_threads(num_threads)
    engine = load_engine(_open(path), options)
    for note in engine.notes:
        warnings.warn(note, stacklevel=2)
    return Model(engine)


def find_draft(draft: str | Path) -> tuple[str, Store | None]:
    """The meaning of ``load``'s ``draft``: its name, and the store that drafts if it names one.

    Raises:
        RequestError: there is no such store, or it cannot be used.
    """
    if draft in DRAFTS:
        return str(draft), None
    if not isinstance(draft, str | os.PathLike):
        raise RequestError(f"draft is {draft!r:.60}; give one of {', '.join(DRAFTS)}, or the path of a store")
    try:
        return STORE, _open(Path(draft))
    except NotAStoreError:
        raise RequestError(
            f"no draft {str(draft)!r}; choose one of {', '.join(DRAFTS)}, or give a small store"
        ) from None


def _size(size: str | int | None) -> int | None:
    return None if size is None else parse_size(size)


def _path_of(store: str | Path) -> Path:
    if not isinstance(store, str | os.PathLike):
        raise RequestError(f"store is {store!r:.60}; give the path of a store's folder or of a GGUF file")
    return Path(store)


def _open(path: Path) -> Store:
    if path.is_file():
        # Only here: stores are opened without the code that reads checkpoints.
        from edgemoe.convert import open_runnable

        return open_runnable(path)
    return open_store(path)


def set_num_threads(num_threads: int | None) -> None:
    """Compute on this many threads, in the whole process; None: on as many as before.

    Raises:
        RequestError: none, or so many that they only hold each other up.
    """
    if num_threads is None:
        return
    most = max(16, 4 * (os.cpu_count() or 1))
    if not 1 <= arguments.whole("num_threads", num_threads, 0) <= most:
        raise RequestError(f"num_threads is {num_threads}; give 1 to {most}, best one for each core")
    native.set_num_threads(int(num_threads))
