"""Where each canonical tensor lies in a checkpoint: tables of names, and a match that leaves nothing over.

A canonical name has one or more candidates, because the same family is published under several names;
the first that is there is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgemoe.checkpoint import SourceRef
from edgemoe.errors import CheckpointError, MissingTensorError, UnusedTensorError
from edgemoe.models.families import switch_names
from edgemoe.models.spec import ModelSpec

PROJECTIONS = ("gate", "up", "down")

# Canonical part after "layers.{l}." → candidates after "model.layers.{l}.".
LAYER_NAMES: dict[str, tuple[str, ...]] = {
    **{
        f"attention.{p}.{kind}": (f"self_attn.{p}_proj.{kind}",)
        for p in "qkvo"
        for kind in ("weight", "bias")
    },
    "attention.q_norm.weight": ("self_attn.q_norm.weight",),
    "attention.k_norm.weight": ("self_attn.k_norm.weight",),
    "attention_norm.weight": ("input_layernorm.weight",),
    "ffn_norm.weight": ("post_attention_layernorm.weight",),
    "router.weight": ("mlp.gate.weight", "block_sparse_moe.gate.weight"),
    "shared_gate.weight": ("mlp.shared_expert_gate.weight",),
    **{f"shared.{p}.weight": (f"mlp.shared_expert.{p}_proj.weight",) for p in PROJECTIONS},
    **{f"mlp.{p}.weight": (f"mlp.{p}_proj.weight",) for p in PROJECTIONS},
}
TOP_NAMES: dict[str, tuple[str, ...]] = {
    "embed.weight": ("model.embed_tokens.weight",),
    "norm.weight": ("model.norm.weight",),
    "head.weight": ("lm_head.weight",),
}
# One tensor an expert, after "model.layers.{l}."; w1, w3, w2 are Mixtral's names.
EXPERT_NAMES: dict[str, tuple[str, ...]] = {
    projection: (
        f"mlp.experts.{{e}}.{projection}_proj.weight",
        f"block_sparse_moe.experts.{{e}}.{old}.weight",
        f"mlp.experts.{{e}}.{old}.weight",
    )
    for projection, old in (("gate", "w1"), ("up", "w3"), ("down", "w2"))
}
# All experts of a layer stacked: gate_up (E, 2 F, D), gate rows first, and down (E, D, F).
_STACKED_PREFIXES = ("mlp.experts", "block_sparse_moe.experts")

# Buffers that older versions saved and that are computed.
_COMPUTED = re.compile(r".*\.(rotary_emb\.inv_freq|masked_bias|attn\.bias)")

ExpertPart = tuple[int, int, str]


@dataclass(frozen=True)
class TensorSources:
    """Where to read every tensor of a model: by canonical name, and by (layer, expert, projection)."""

    dense: Mapping[str, SourceRef]
    experts: Mapping[ExpertPart, SourceRef]


def find_sources(spec: ModelSpec, shapes: Mapping[str, tuple[int, ...]]) -> TensorSources:
    """Match the spec's tensors to stored names and shapes.

    Raises:
        MissingTensorError: a tensor the spec needs is not there.
        UnusedTensorError: a stored tensor is not needed, so the model is not what its configuration says.
        CheckpointError: a tensor has another shape than the configuration implies.
    """
    matcher = _Matcher(shapes)
    dense = {
        t.name: matcher.whole(_candidates(spec, t.name), t.source_shape or t.shape)
        for t in spec.dense_tensors()
    }
    experts: dict[ExpertPart, SourceRef] = {}
    for layer in spec.moe_layers:
        experts.update(_expert_sources(matcher, spec, layer))
    # A tied head is sometimes saved as well; it equals the embedding.
    tied = {"lm_head.weight"} if spec.has_tied_head else set()
    if spec.has_encoder:
        tied.update(switch_names.UNUSED)
    left = sorted(n for n in set(shapes) - matcher.used - tied if not _COMPUTED.fullmatch(n))
    if left:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        raise UnusedTensorError(
            f"tensor {left[0]}{more} belongs to nothing that {spec.family} has by this config.json;"
            " running without it could give wrong text"
        )
    return TensorSources(dense, experts)


def _candidates(spec: ModelSpec, canonical: str) -> tuple[str, ...]:
    if spec.has_encoder:
        return switch_names.dense_names(spec, canonical)
    match = re.fullmatch(r"layers\.(\d+)\.(.+)", canonical)
    if match is None:
        return TOP_NAMES[canonical]
    return tuple(f"model.layers.{match[1]}.{name}" for name in LAYER_NAMES[match[2]])


class _Matcher:
    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._shapes = shapes
        self.used: set[str] = set()

    def whole(self, candidates: Iterable[str], shape: tuple[int, ...]) -> SourceRef:
        names = list(candidates)
        found = next((name for name in names if name in self._shapes), None)
        if found is None:
            raise MissingTensorError(f"the checkpoint has no tensor {names[0]}; is a shard missing?")
        if self._shapes[found] != shape:
            raise CheckpointError(
                f"tensor {found} has shape {self._shapes[found]}, config.json implies {shape}"
            )
        self.used.add(found)
        return SourceRef(found)

    def has(self, name: str) -> bool:
        return name in self._shapes


def _expert_sources(matcher: _Matcher, spec: ModelSpec, layer: int) -> Iterable[tuple[ExpertPart, SourceRef]]:
    num_experts, width = spec.moe(layer).router.num_experts, spec.moe(layer).expert.width
    for prefix in _STACKED_PREFIXES:
        stacked = f"model.layers.{layer}.{prefix}"
        if not matcher.has(f"{stacked}.gate_up_proj"):
            continue
        raised = matcher.whole([f"{stacked}.gate_up_proj"], (num_experts, 2 * width, spec.width)).name
        down = matcher.whole([f"{stacked}.down_proj"], (num_experts, spec.width, width)).name
        for expert in range(num_experts):
            yield (layer, expert, "gate"), SourceRef(raised, expert, (0, width))
            yield (layer, expert, "up"), SourceRef(raised, expert, (width, 2 * width))
            yield (layer, expert, "down"), SourceRef(down, expert)
        return
    for expert in range(num_experts):
        for projection, shape in spec.expert_shapes(layer).items():
            names = _expert_candidates(spec, layer, expert, projection)
            yield (layer, expert, projection), matcher.whole(names, shape)


def _expert_candidates(spec: ModelSpec, layer: int, expert: int, projection: str) -> tuple[str, ...]:
    if spec.has_encoder:
        return switch_names.expert_names(spec, layer, expert, projection)
    return tuple(f"model.layers.{layer}.{name.format(e=expert)}" for name in EXPERT_NAMES[projection])
