"""Building the predictor that a store is run with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgemoe import native
from edgemoe.errors import RequestError, StoreError
from edgemoe.experts import (
    DEFAULT_POLICY,
    FORECAST,
    FittedRouting,
    GateHead,
    GatePredictor,
    HybridPredictor,
    NextUse,
    NoPredictor,
    Predictor,
    TablePredictor,
    find_fitted,
    num_gate_columns,
    read_fitted,
)
from edgemoe.models import DenseWeights, ModelSpec, build_router, router_norm
from edgemoe.native import FloatArray, Matrix
from edgemoe.store import Store, leave_out

# "gate" applies the next layers' own routers, "gate-fitted" their corrected forms that `edgemoe fit`
# made, "hybrid" adds the table to those; "auto" is the best that the store allows.
PREDICTORS = ("auto", "none", "table", "gate", "gate-fitted", "hybrid")
NEEDS_FIT = ("table", "gate-fitted", "hybrid")
# Layers ahead that the plain gate looks.
LOOKAHEAD = 2


def choose_predictor(store: Store, name: str) -> str:
    """The predictor that "auto" stands for; other names are themselves.

    Raises:
        RequestError: no such predictor, or nothing was fitted for the store yet.
        StoreError: what was fitted is damaged.
    """
    if name not in PREDICTORS:
        raise RequestError(f"no predictor {name!r}; choose one of {', '.join(PREDICTORS)}")
    is_fitted = find_fitted(store) is not None
    if name in NEEDS_FIT and not is_fitted:
        if store.notes:
            raise StoreError(store.notes[-1])
        raise RequestError(
            f"{store.name}: the predictor {name!r} needs what `edgemoe trace` and `edgemoe fit` learn, and"
            " they have not been run on this store"
        )
    if name == "auto":
        return "hybrid" if is_fitted else "gate"
    return name


def without_misfit(spec: ModelSpec, store: Store, name: str) -> Store:
    """The store, without what was fitted for it if that cannot be used and ``name`` does not ask for it.

    A note says so: a damaged predictor does not keep a store from running.

    Raises:
        StoreError: it cannot be used, and the predictor of this name needs it.
    """
    try:
        _fitted_for(spec, store)
    except StoreError as error:
        if name in NEEDS_FIT:
            raise
        return leave_out(store, find_fitted(store), f"{error}; the store is run without it")
    return store


def predictor_num_bytes(
    spec: ModelSpec, store: Store, name: str = "auto", policy: str = DEFAULT_POLICY
) -> int:
    """Memory that a predictor takes, and what the eviction policy forecasts with; an upper bound.

    Raises:
        RequestError: as ``choose_predictor``.
    """
    name = choose_predictor(store, name)
    file = find_fitted(store)
    sizes = [spec.moe(layer).router.num_experts for layer in spec.decoder_moe_layers]
    if name in NEEDS_FIT:
        assert file is not None
        return 2 * store.manifest.files[file]  # tables are computed with in single precision
    next_use = 0
    if policy == FORECAST and file is not None:
        next_use = sum(2 * size * num_gate_columns(spec.width, size) for size in sizes)
    return next_use + (_plain_num_bytes(spec, sizes) if name == "gate" else 0)


def _plain_num_bytes(spec: ModelSpec, sizes: Sequence[int]) -> int:
    return sum(
        4 * sum(sizes[p + 1 : p + 1 + LOOKAHEAD]) * num_gate_columns(spec.width, size)
        for p, size in enumerate(sizes)
    )


def build_predictor(spec: ModelSpec, weights: DenseWeights, store: Store, name: str) -> Predictor:
    """The predictor of that name, as ``choose_predictor`` gives it; position 0 is the first of a step.

    Raises:
        StoreError: what was fitted for the store is damaged or was fitted for another model.
    """
    sizes = [spec.moe(layer).router.num_experts for layer in spec.decoder_moe_layers]
    if name == "none":
        return NoPredictor()
    routers = choice_routers(spec, weights)
    if name == "gate":
        return GatePredictor(plain_heads(spec, weights), sizes, routers)
    fitted = _fitted_for(spec, store)
    assert fitted is not None
    return fitted_predictor(fitted, name, sizes, routers)


def choice_routers(spec: ModelSpec, weights: DenseWeights) -> dict[int, native.Router]:
    """The rules by position, of a step, of the layers that choose by more than the order of logits."""
    return {
        position: build_router(spec.moe(layer).router, weights, layer)
        for position, layer in enumerate(spec.decoder_moe_layers)
        if spec.moe(layer).router.has_choice_bias or spec.moe(layer).router.num_groups > 1
    }


def fitted_predictor(
    fitted: FittedRouting,
    name: str,
    num_experts: list[int],
    routers: Mapping[int, native.Router] | None = None,
) -> Predictor:
    """A predictor made from what was fitted; ``num_experts`` of every position, ``routers`` of some."""
    table = TablePredictor(fitted.tables, num_experts)
    if name == "table":
        return table
    heads = {position: gate.head() for position, gate in fitted.gates.items()}
    gate = GatePredictor(heads, num_experts, routers)
    return gate if name == "gate-fitted" else HybridPredictor(gate, table, fitted.table_weights)


def build_next_use(spec: ModelSpec, store: Store, policy: str, first_step: int = 0) -> NextUse | None:
    """What the eviction policy forecasts with; None where it does not, or nothing was fitted.

    ``first_step`` is the position of the first layer that runs at every step: what was fitted calls it 0.

    Raises:
        StoreError: what was fitted for the store is damaged or was fitted for another model.
    """
    fitted = _fitted_for(spec, store) if policy == FORECAST else None
    return None if fitted is None else fitted.next_use(first_step)


def _fitted_for(spec: ModelSpec, store: Store) -> FittedRouting | None:
    fitted = read_fitted(store)
    sizes = [spec.moe(layer).router.num_experts for layer in spec.decoder_moe_layers]
    if fitted is not None and not fitted.fits(spec.width, sizes):
        raise StoreError(f"{store.path}: fitted for another model; run `edgemoe fit` again")
    return fitted


def plain_heads(spec: ModelSpec, weights: DenseWeights) -> Mapping[int, GateHead]:
    """The next layers' routers, as they act on each layer's state; none looks past the last layer."""
    heads, layers = {}, list(enumerate(spec.decoder_moe_layers))
    for position, layer in layers:
        targets = layers[position + 1 : position + 1 + LOOKAHEAD]
        if targets:
            rows = np.concatenate([plain_weights(spec, weights, layer, ahead) for _, ahead in targets])
            sizes = [(p, spec.moe(ahead).router.num_experts) for p, ahead in targets]
            packed = native.quantize(rows, "f32")
            heads[position] = GateHead(Matrix(packed, "f32", *rows.shape), sizes)
    return heads


def plain_weights(spec: ModelSpec, weights: DenseWeights, layer: int, ahead: int) -> FloatArray:
    """The router of the layer ``ahead`` for what the router of ``layer`` sees: (E, columns).

    The residual stream changes little from layer to layer, the norm's weights may change much: they are
    exchanged.
    """
    router = weights.matrix(f"layers.{ahead}.router.weight")
    own_norm = weights.optional_vector(f"layers.{layer}.ffn_norm.weight")
    next_norm = router_norm(spec.moe(ahead), weights, ahead)
    if own_norm is None:
        own_norm = np.ones_like(next_norm)
    ratio = np.divide(next_norm, own_norm, out=np.zeros_like(own_norm), where=own_norm != 0)
    rows = native.dequantize(router.packed, router.format, router.num_rows, router.num_cols)
    num_experts = spec.moe(layer).router.num_experts
    columns = num_gate_columns(spec.width, num_experts)
    ratio = np.pad(ratio, (0, spec.width - len(ratio)))
    padded: FloatArray = np.pad(rows * ratio, ((0, 0), (0, columns - spec.width)))
    bias = weights.optional_vector(f"layers.{ahead}.router.bias")
    if bias is not None:
        padded[:, spec.width + num_experts] = bias
    own_bias = weights.optional_vector(f"layers.{layer}.ffn_norm.bias")
    next_bias = weights.optional_vector(f"layers.{ahead}.ffn_norm.bias")
    if own_bias is not None and next_bias is not None:
        size = spec.hidden_size
        padded[:, spec.width + num_experts] += rows[:, :size] @ (next_bias - ratio[:size] * own_bias)
    return padded
