"""A model of the Hugging Face Hub becomes a store: ``get_model``, and ``look_at_model`` before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edgemoe.bench import measure_products, measure_storage
from edgemoe.checkpoint import CheckpointSource, HubName, model_name, open_hub, parse_hub_name, with_file
from edgemoe.convert import ConversionReport, convert
from edgemoe.convert.outlook import Outlook, look_ahead
from edgemoe.errors import ConversionError, RequestError
from edgemoe.progress import ShowSteps, Tell, unheard, unseen
from edgemoe.store.library import library_folder
from edgemoe.units import format_size, parse_size
from edgemoe.workflows.outputs import existing_folder, free_bytes
from edgemoe.workflows.widths import UniformWidths


@dataclass(frozen=True)
class GetOptions(UniformWidths):
    """How a model is fetched; checked when it is made.

    ``bits`` and ``dense_bits`` as in UniformWidths. ``out``: the store; by default by name, in the library.
    ``memory``: the budget that the outlook is for; by default some that make sense. ``keeps_mtp``: a layer
    that predicts further tokens is stored too.

    Raises:
        RequestError: there is no such width or size.
    """

    out: str | Path | None = None
    memory: str | int | None = None
    keeps_mtp: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory is not None:
            parse_size(self.memory)


@dataclass(frozen=True)
class Fetched:
    """What was fetched: the store's folder, the name that commands find it by, what was foreseen and done.

    ``report`` is None where nothing was fetched yet.
    """

    store: Path
    name: str
    outlook: Outlook
    report: ConversionReport | None = None


def look_at_model(name: str, options: GetOptions | None = None) -> Fetched:
    """What a model would take and give on this machine; no weights are fetched.

    ``name``: org/model, org/model@revision, org/model:file.gguf or org/model:Q4_K_M. Products and the storage
    are timed for it, some seconds.

    Raises:
        BudgetError: the memory asked for is too small.
        CheckpointError: the model is not one we can run, or cannot be reached.
        RequestError: that is no name of a model.
    """
    options, hub_name = options or GetOptions(), _parsed(name)
    source = open_hub(hub_name)
    try:
        return _looked(source, hub_name, options)
    finally:
        source.close()


def get_model(
    name: str,
    options: GetOptions | None = None,
    *,
    steps: ShowSteps = unseen,
    tell: Tell = unheard,
    looked: Callable[[Fetched], None] | None = None,
) -> Fetched:
    """Fetch a model and convert it on the way: the disk holds the store and nothing else.

    ``looked`` is told of what ``look_at_model`` finds, before any weight is fetched. An interrupted call goes
    on.

    Raises:
        BudgetError, CheckpointError, RequestError: as ``look_at_model``; the store exists.
        ConversionError: the disk is full.
    """
    options, hub_name = options or GetOptions(), _parsed(name)
    place = _place(hub_name, options)
    if place.exists():
        raise RequestError(f"{place} exists; run it, remove it, or choose another place with --out")
    source = open_hub(hub_name)
    try:
        found = _looked(source, hub_name, options)
        if looked is not None:
            looked(found)
        _check_room(place, found.outlook.store_bytes)
        place.parent.mkdir(parents=True, exist_ok=True)
        plan = options.plan(source, is_gguf=hub_name.file is not None)
        with steps(f"fetching and converting {hub_name.repo}", "bytes") as advance:
            report = convert(source, place, plan, keeps_mtp=options.keeps_mtp, progress=advance, tell=tell)
        return replace(found, report=report)
    finally:
        source.close()


def _parsed(name: str) -> HubName:
    """The model that is named, with the whole name of its file."""
    found = parse_hub_name(name)
    if found is None:
        raise RequestError(f"{name!r} is no name of a model on the Hub; give organisation/model")
    return with_file(found)


def _place(name: HubName, options: GetOptions) -> Path:
    return library_folder() / _store_name(name) if options.out is None else Path(options.out)


def _store_name(name: HubName) -> str:
    if name.file is None:
        return name.repo
    return f"{name.repo.split('/')[0]}/{Path(model_name(name.file)).name}"


def _looked(source: CheckpointSource, name: HubName, options: GetOptions) -> Fetched:
    place = _place(name, options)
    speed = measure_storage(existing_folder(place)).bytes_per_s
    budgets = () if options.memory is None else (parse_size(options.memory),)
    plan = options.plan(source, is_gguf=name.file is not None)
    products = measure_products(plan.default.up)
    outlook = look_ahead(source, plan, products, speed, budgets, keeps_mtp=options.keeps_mtp)
    return Fetched(place, _store_name(name) if options.out is None else str(place), outlook)


def _check_room(place: Path, num_bytes: int) -> None:
    free = free_bytes(place)
    partial = place.with_name(f"{place.name}.partial")
    done = sum(f.stat().st_blocks * 512 for f in partial.iterdir()) if partial.is_dir() else 0
    if free + done < num_bytes:
        raise ConversionError(
            f"{existing_folder(place)}: {format_size(free)} are free, the store takes"
            f" {format_size(num_bytes)}; choose another place with --out, or fewer --bits"
        )
