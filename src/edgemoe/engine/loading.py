"""From a store on disk to a decoder that runs inside a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from edgemoe.engine import forks
from edgemoe.engine.batch import Limits
from edgemoe.engine.budget import check_budget
from edgemoe.engine.defaults import Suppressed, read_sampling_defaults, read_suppressed
from edgemoe.engine.draft_store import DraftPlan, MtpPlan, plan_draft, plan_mtp
from edgemoe.engine.drafting import Drafting, DraftModel, MtpModel, build_drafting, check_draft
from edgemoe.engine.drafting.mtp_drafter import StateRoom
from edgemoe.engine.encoder_session import EncoderDecoderSession
from edgemoe.engine.energy import EnergyMeter, find_counters, memory_bytes_per_use
from edgemoe.engine.memory import MemoryNeeds, MemoryPlan, checked_context, plan_memory
from edgemoe.engine.prediction import (
    build_next_use,
    build_predictor,
    choose_predictor,
    without_misfit,
)
from edgemoe.engine.scheduler import Scheduler
from edgemoe.engine.sequence import Machinery
from edgemoe.engine.session import Session
from edgemoe.engine.state_pool import StatePool
from edgemoe.engine.steps import StepMaker
from edgemoe.engine.storage import tune_depth
from edgemoe.engine.store_needs import needs_of
from edgemoe.engine.stored_weights import check_store, expert_shape, read_dense_weights, weights_id
from edgemoe.errors import BudgetError, RequestError
from edgemoe.experts import (
    DEFAULT_POLICY,
    Catalog,
    ExpertCache,
    NoPredictor,
    StepPredictor,
    StreamedExperts,
    make_policy,
)
from edgemoe.models import KV_FORMATS, Decoder, DenseWeights, Encoder, ModelSpec, MtpLayer, read_spec
from edgemoe.native import MAX_REHEARSED, LayerPace
from edgemoe.store import Device, Store
from edgemoe.text import Tokenizer


@dataclass(frozen=True)
class Engine:
    """Everything that runs one model."""

    spec: ModelSpec
    memory: MemoryPlan
    tokenizer: Tokenizer
    experts: StreamedExperts
    session: Session
    drafting: Drafting
    sampling: Mapping[str, float]  # what the model's authors say of drawing tokens
    weights_id: str  # the same for stores of the same weights in the same formats
    energy: EnergyMeter
    suppressed: Suppressed  # by the authors, too
    notes: tuple[str, ...] = ()  # what of the store is not used, and why

    def close(self) -> None:
        """Let no step begin any more, stop reading, release memory; waits for the step that is running."""
        self.session.close()
        if not self.session.is_forked:
            self.experts.close()
        self.drafting.close()


@dataclass(frozen=True)
class LoadOptions:
    """How a store is run; nothing here changes a token, ``kv_format`` apart.

    Raises:
        RequestError: there is no such format.
    """

    budget_bytes: int | None = None
    context: int | None = None
    kv_format: str = "f16"
    cache_bytes: int | None = None
    policy: str = DEFAULT_POLICY
    reader: str = "auto"
    verify: str = "always"
    predictor: str = "auto"
    device: Device | None = None  # reads are slowed down to its pace
    tier_bytes: int | None = None  # of this disk, for experts of a store at a URL; None: its own choice
    swaps_layers: bool = False  # read whole layers, as a baseline
    num_texts: int = 1  # whole contexts that all open texts share
    answers_at_once: int | None = None  # written together, within what is planned; default: where it pays
    has_grammars: bool = False  # keeps room for those of the server
    held_bytes: int = 0  # that the process may come to take without this model
    max_rehearsed: int = MAX_REHEARSED  # layers rehearsed while one waits for storage
    draft: str = "none"  # where drafts of the next tokens come from; see DRAFTS
    draft_store: Store | None = None  # a small model that they come from
    num_drafted: int | None = None  # each time, whatever it costs; default: as far as it pays
    clock: Callable[[], float] | None = None  # seconds, by which reading ahead is paced; None: the machine's

    def __post_init__(self) -> None:
        if self.kv_format not in KV_FORMATS:
            raise RequestError(f"no KV format {self.kv_format!r}; choose one of {', '.join(KV_FORMATS)}")


def load_engine(store: Store, options: LoadOptions) -> Engine:
    """Plan the memory, then load the dense weights; experts come when they are first used.

    Raises:
        BudgetError: the budget cannot work.
        RequestError: the budget is more than the machine or the cgroup has.
        StoreError: the store is damaged or does not fit its configuration.
    """
    spec = read_spec(store.config)
    store = _checked(spec, store, options)
    # Loaded before the plan is made: its memory is measured rather than guessed.
    tokenizer = Tokenizer(store.path, store.config)
    sampling, suppressed = read_sampling_defaults(store.path), read_suppressed(store.path)
    predictor_name = choose_predictor(store, options.predictor)
    draft, memory = _plan(spec, store, predictor_name, options)
    experts, session = _assemble(spec, store, memory, predictor_name, options)
    try:
        drafting = _load_drafting(draft, spec, store, session, options)
    except BaseException:
        experts.close()
        raise
    return Engine(
        spec=spec,
        memory=memory,
        tokenizer=tokenizer,
        experts=experts,
        session=session,
        drafting=drafting,
        sampling=sampling,
        weights_id=weights_id(store.manifest),
        energy=EnergyMeter(find_counters(), memory_bytes_per_use(spec, store.manifest)),
        suppressed=suppressed,
        notes=store.notes,
    )


def _checked(spec: ModelSpec, store: Store, options: LoadOptions) -> Store:
    """The store as it is to be read, once it and the options are known to fit each other."""
    check_store(spec, store)
    check_draft(spec, options.draft)
    store = without_misfit(spec, store, options.predictor)
    if options.tier_bytes is not None:
        store = store.with_tier(options.tier_bytes)
    if options.budget_bytes is not None:
        check_budget(options.budget_bytes)
    return store


def _plan(
    spec: ModelSpec, store: Store, predictor_name: str, options: LoadOptions
) -> tuple[DraftPlan | MtpPlan | None, MemoryPlan]:
    """What drafts, if a model does, and where every byte of the budget goes."""
    needs = MemoryNeeds(
        context=options.context,
        num_texts=options.num_texts,
        kv_format=options.kv_format,
        cache_bytes=options.cache_bytes,
        has_grammars=options.has_grammars,
        held_bytes=options.held_bytes,
    )
    needs = needs_of(spec, store, needs, predictor=predictor_name, policy=options.policy)

    def memory(draft_bytes: int) -> MemoryPlan:
        drafts = replace(needs, draft_bytes=draft_bytes)
        return plan_memory(spec, store.manifest, options.budget_bytes, drafts)

    beside = (checked_context(spec, options.context), options.kv_format, options.num_texts)
    if options.draft_store is not None:
        small = plan_draft(options.draft_store, store, spec, *beside)
        return small, memory(small.num_bytes)
    mtp = plan_mtp(store, spec, *beside) if options.draft in ("auto", "mtp") else None
    if mtp is None:
        if options.draft == "mtp":
            raise RequestError(
                f"{store.name} has no layer that predicts further tokens; convert a checkpoint that has one,"
                " or choose another draft"
            )
        return None, memory(0)
    if options.draft == "mtp":
        return mtp, memory(mtp.num_bytes)
    with suppress(BudgetError):
        found = memory(mtp.num_bytes)
        if found.is_resident:  # else experts of the model need that memory more
            return mtp, found
    return None, memory(0)


def _load_drafting(
    plan: DraftPlan | MtpPlan | None, spec: ModelSpec, store: Store, session: Session, options: LoadOptions
) -> Drafting:
    """What guesses at the next tokens, with the model that does so where ``plan`` has one."""
    model: DraftModel | MtpModel | None = None
    if isinstance(plan, DraftPlan):
        model = _load_draft(plan, spec, options)
    elif plan is not None:
        model = _load_mtp(plan, session, options)
    return build_drafting(spec, store.manifest, options.draft, options.num_drafted, model)


def _load_mtp(plan: MtpPlan, session: Session, options: LoadOptions) -> MtpModel:
    """The layer for further tokens of a session's model."""
    spec, store = plan.spec.model, plan.store
    weights = read_dense_weights(spec, store, options.reader, plan.spec.dense_tensors())
    own = LoadOptions(reader=options.reader, verify=options.verify)
    experts = _stream(spec, store, weights, plan.expert_bytes, "none", own)
    forks.keep(experts)
    try:
        experts.preload()
        layer = MtpLayer(plan.spec, weights, experts, session.decoder)
    except BaseException:
        experts.close()
        raise
    room = StateRoom(plan.state_bytes)

    def close() -> None:
        if not session.is_forked:
            experts.close()

    return MtpModel(layer, spec, plan.context, options.kv_format, session.turn, room, close)


def _load_draft(plan: DraftPlan, spec: ModelSpec, options: LoadOptions) -> DraftModel:
    """The small model that drafts for one of ``spec``, all of it in memory."""
    own = LoadOptions(reader=options.reader, verify=options.verify, num_texts=options.num_texts)
    experts, session = _assemble(plan.spec, plan.store, plan.memory, "none", own)

    def close() -> None:
        session.close()
        if not session.is_forked:
            experts.close()

    try:
        experts.preload()
    except BaseException:
        close()
        raise
    return DraftModel(session, spec.vocab_size, close)


def _assemble(
    spec: ModelSpec, store: Store, memory: MemoryPlan, predictor_name: str, options: LoadOptions
) -> tuple[StreamedExperts, Session]:
    """A store's weights, run by a plan of the memory."""
    weights = read_dense_weights(spec, store, options.reader)
    experts = _stream(spec, store, weights, memory.expert_cache_bytes, predictor_name, options)
    try:
        return experts, _session(spec, weights, experts, memory, options.answers_at_once)
    except BaseException:
        experts.close()
        raise


def _stream(
    spec: ModelSpec,
    store: Store,
    weights: DenseWeights,
    cache_bytes: int,
    predictor_name: str,
    options: LoadOptions,
) -> StreamedExperts:
    """A store's experts, with a cache of so many bytes."""
    predictor = build_predictor(spec, weights, store, predictor_name)
    sizes = {key: entry.num_bytes for key, entry in store.manifest.experts.items()}
    catalog = Catalog(sizes, spec.num_encoder_layers)
    if spec.has_encoder and not isinstance(predictor, NoPredictor):
        predictor = StepPredictor(predictor, catalog.first_step)
    next_use = build_next_use(spec, store, options.policy, catalog.first_step)
    cache = ExpertCache(catalog, cache_bytes, make_policy(options.policy))
    reader = store.open_expert_reader(options.reader, store.depths[-1], options.device)
    try:
        speed = tune_depth(store, reader)
        pace = LayerPace(speed.bytes_per_s, speed.latency_s, speed.handling_s, options.clock)
        layers = {layer: expert_shape(spec, weights, layer) for layer in spec.moe_layers}
        return StreamedExperts(
            layers,
            store,
            reader,
            cache,
            options.verify,
            predictor,
            spec.most_chosen,
            pace,
            swaps_layers=options.swaps_layers,
            next_use=next_use,
            max_rehearsed=options.max_rehearsed,
        )
    except BaseException:
        reader.close()
        raise


def _session(
    spec: ModelSpec,
    weights: DenseWeights,
    experts: StreamedExperts,
    memory: MemoryPlan,
    answers_at_once: int | None,
) -> Session:
    forks.keep(experts)
    scheduler = Scheduler()
    pool = StatePool(spec, memory.context, memory.kv_format, memory.state_bytes, scheduler)
    decoder = Decoder(spec, weights, experts)
    encoder = Encoder(spec, weights, experts) if spec.has_encoder else None
    # Where an expert takes only so many tokens of a text, rows depend on each other.
    is_batched = not any(spec.moe(layer).router.capacity for layer in spec.moe_layers)
    most = Limits(memory.step_rows, memory.num_answers)
    steps = StepMaker(decoder, experts, pool, most, is_batched, answers_at_once)
    machinery = Machinery(decoder, encoder, experts, scheduler, steps, pool, memory.chunk_size)
    return (EncoderDecoderSession if spec.has_encoder else Session)(spec, machinery)
