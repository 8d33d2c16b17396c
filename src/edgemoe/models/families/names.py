"""Tables from a model's own tensor names to those of checkpoints, and the names that many families share.

A family's table maps each canonical name to one or more candidates, because the same model is published
under several names; the first that a checkpoint has is taken. What a checkpoint has besides must stand in
``passed_over``, else it is refused: running without it could give wrong text.

In templates ``{l}`` is the layer and ``{e}`` the expert. A template of experts without ``{e}`` is a stack of
all experts of a layer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from edgemoe.models.spec import AttentionSpec, ModelSpec
from edgemoe.source_ref import PlusOne, Rows, SourceRef, Step, TakeColumns, TakeRows, half_rotation_rows

PROJECTIONS = ("gate", "up", "down")

Steps = tuple[Step, ...]


@dataclass(frozen=True)
class Name:
    """A template and the steps from what is stored there to what the model needs, given spec and layer."""

    template: str
    steps: Callable[[ModelSpec, int], Steps]


Names = tuple["str | Name", ...]


class Naming(Protocol):
    """How a kind of checkpoint names the tensors of a family."""

    def dense(self, spec: ModelSpec, canonical: str) -> Iterator[SourceRef]:
        """Where a tensor may be, the usual place first."""
        ...

    def expert(self, spec: ModelSpec, layer: int, expert: int, projection: str) -> Iterator[SourceRef]:
        """Where a matrix of an expert may be, the usual place first."""
        ...

    def passed_over(self, spec: ModelSpec, name: str) -> str | None:
        """What a stored tensor belongs to that is not run, or None if it should have been."""
        ...


@dataclass(frozen=True)
class NameTable:
    """A Naming made of tables. ``layers`` is by what follows "layers.{l}." in canonical names."""

    prefixes: tuple[str, ...]  # before all but the head
    layer_prefix: str
    top: Mapping[str, Names]
    layers: Mapping[str, Names]
    experts: Mapping[str, Names]
    # Patterns of whole stored names, and what they belong to; "" for what changes nothing.
    ignored: Mapping[str, str] = field(default_factory=dict)
    # Layers from this one on predict further tokens and are not run; None: no such layers.
    extra_layers: str | None = None

    def with_top(self, names: Mapping[str, Names]) -> NameTable:
        """The table with other names outside the layers."""
        return replace(self, top={**self.top, **names})

    def dense(self, spec: ModelSpec, canonical: str) -> Iterator[SourceRef]:
        """See Naming."""
        match = re.fullmatch(r"layers\.(\d+)\.(.+)", canonical)
        layer = int(match[1]) if match else 0
        names = self.layers.get(match[2], ()) if match else self.top.get(canonical, ())
        for prefix in self.prefixes:
            before = prefix + self.layer_prefix.format(l=layer) if match else prefix
            for name in names:
                yield _resolved(name, before, spec, layer)

    def expert(self, spec: ModelSpec, layer: int, expert: int, projection: str) -> Iterator[SourceRef]:
        """See Naming."""
        for prefix in self.prefixes:
            before = prefix + self.layer_prefix.format(l=layer)
            for name in self.experts[projection]:
                yield _resolved(name, before, spec, layer, expert)

    def passed_over(self, spec: ModelSpec, name: str) -> str | None:
        """See Naming."""
        # A tied head is sometimes saved as well; it equals the embedding.
        if spec.has_tied_head and name in _texts(self.top.get("head.weight", ())):
            return ""
        for pattern, what in {**_COMPUTED, **self.ignored}.items():
            if re.fullmatch(pattern, name):
                return what
        for prefix in self.prefixes:
            pattern = re.escape(prefix + self.layer_prefix).replace(r"\{l\}", r"(\d+)") + ".+"
            match = re.fullmatch(pattern, name)
            if match and self.extra_layers is not None and int(match[1]) >= len(spec.layers):
                return self.extra_layers
        return None


MTP = "layers that predict further tokens"
VISION, AUDIO = "the vision tower", "the audio tower"
# Buffers that older versions saved and that are computed, and what training adds beside the model.
_COMPUTED = {
    r".*\.(rotary_emb\.inv_freq|masked_bias|attn\.bias)": "",
    r"v_head\..*": "the value head of its training",
}


def _resolved(
    name: str | Name, before: str, spec: ModelSpec, layer: int, expert: int | None = None
) -> SourceRef:
    template, steps = (name, ()) if isinstance(name, str) else (name.template, name.steps(spec, layer))
    # A head and towers stand beside the model, not inside it.
    whole = template[1:] if template.startswith("/") else before + template
    if expert is None:
        return SourceRef(whole, steps=steps)
    is_stacked = "{e}" not in template
    return SourceRef(whole.replace("{e}", str(expert)), expert if is_stacked else None, steps=steps)


def _texts(names: Names) -> set[str]:
    return {(name if isinstance(name, str) else name.template).removeprefix("/") for name in names}


def plus_one(spec: ModelSpec, layer: int) -> Steps:
    """The weight of a norm that is stored less one."""
    return (PlusOne(),)


def parts_filled(count: int, columns: bool = False) -> Callable[[ModelSpec, int], Steps]:
    """Rows or columns of ``count`` parts as long as a token's state: each is filled up with zeros alone."""

    def steps(spec: ModelSpec, layer: int) -> Steps:
        if spec.width == spec.hidden_size:
            return ()
        entries = np.full((count, spec.width), -1)
        entries[:, : spec.hidden_size] = np.arange(count * spec.hidden_size).reshape(count, -1)
        return (TakeColumns(entries.ravel()) if columns else TakeRows(entries.ravel()),)

    return steps


def first_half(spec: ModelSpec, layer: int) -> Steps:
    """The gate of a stack of gate and up, one after the other."""
    return (Rows(0, spec.moe(layer).expert.width),)


def second_half(spec: ModelSpec, layer: int) -> Steps:
    """The up of a stack of gate and up, one after the other."""
    width = spec.moe(layer).expert.width
    return (Rows(width, 2 * width),)


def part_of_qkv(projection: str) -> Callable[[ModelSpec, int], Steps]:
    """The rows of queries, keys or values in the matrix of all three, one after the other."""

    def steps(spec: ModelSpec, layer: int) -> Steps:
        attention = _attention(spec, layer)
        sizes = {"q": attention.num_heads, "k": attention.num_kv_heads, "v": attention.num_kv_heads}
        start = sum(sizes[p] for p in "qkv"[: "qkv".index(projection)])
        dim = attention.head_dim
        return (Rows(start * dim, (start + sizes[projection]) * dim),)

    return steps


def hugging_face(
    layers: Mapping[str, Names],
    *,
    extra_layers: str | None = None,
    ignored: Mapping[str, str] | None = None,
    prefixes: tuple[str, ...] = ("model.",),
    experts: Mapping[str, Names] | None = None,
) -> NameTable:
    """The usual names of a family of Hugging Face's, with what its layers have beside attention and norms."""
    return NameTable(
        prefixes,
        "layers.{l}.",
        TOP,
        {**ATTENTION, **layers},
        experts or EXPERTS,
        ignored or {},
        extra_layers,
    )


def pairs_side_by_side(names: Mapping[str, Names]) -> dict[str, Names]:
    """The names of queries and keys whose rotated pairs stand side by side, with the step that parts them."""
    return {
        f"attention.{p}.{kind}": tuple(_followed(name, steps) for name in names[f"attention.{p}.{kind}"])
        for p, steps in (("q", _half_rotated_queries), ("k", _half_rotated_keys))
        for kind in ("weight", "bias")
    }


def _followed(name: str | Name, steps: Callable[[ModelSpec, int], Steps]) -> Name:
    """The name, with further steps after its own."""
    if isinstance(name, str):
        return Name(name, steps)
    return Name(name.template, lambda spec, layer: (*name.steps(spec, layer), *steps(spec, layer)))


def _half_rotated_queries(spec: ModelSpec, layer: int) -> Steps:
    attention = _attention(spec, layer)
    return (half_rotation_rows(attention.num_heads, attention.head_dim, _rotary_dim(attention)),)


def _half_rotated_keys(spec: ModelSpec, layer: int) -> Steps:
    attention = _attention(spec, layer)
    return (half_rotation_rows(attention.num_kv_heads, attention.head_dim, _rotary_dim(attention)),)


def _attention(spec: ModelSpec, layer: int) -> AttentionSpec:
    mixer = spec.layers[layer].mixer
    assert isinstance(mixer, AttentionSpec), "queries and keys are of attention"
    return mixer


def _rotary_dim(attention: AttentionSpec) -> int:
    return attention.head_dim if attention.rope is None else attention.rope.rotary_dim


# What the families of Hugging Face that descend from Llama have in common.
TOP: dict[str, Names] = {
    "embed.weight": ("embed_tokens.weight",),
    "norm.weight": ("norm.weight",),
    "head.weight": ("/lm_head.weight",),
}
ATTENTION: dict[str, Names] = {
    **{
        f"attention.{p}.{kind}": (f"self_attn.{p}_proj.{kind}",)
        for p in "qkvo"
        for kind in ("weight", "bias")
    },
    "attention.q_norm.weight": ("self_attn.q_norm.weight",),
    "attention.k_norm.weight": ("self_attn.k_norm.weight",),
    "attention_norm.weight": ("input_layernorm.weight",),
    "ffn_norm.weight": ("post_attention_layernorm.weight",),
}
SHARED: dict[str, Names] = {
    f"shared.{p}.{kind}": (f"mlp.shared_experts.{p}_proj.{kind}",)
    for p in PROJECTIONS
    for kind in ("weight", "bias")
}
MLP: dict[str, Names] = {
    f"mlp.{p}.{kind}": (f"mlp.{p}_proj.{kind}",) for p in PROJECTIONS for kind in ("weight", "bias")
}
# Under "mlp.experts", and older files under other names; w1, w3, w2 are Mixtral's.
EXPERTS: dict[str, Names] = {
    projection: (
        f"mlp.experts.{{e}}.{projection}_proj.weight",
        *(
            Name(f"{block}.experts.{stack}", half) if half else f"{block}.experts.{stack}"
            for block in ("mlp", "block_sparse_moe")
        ),
        f"block_sparse_moe.experts.{{e}}.{old}.weight",
        f"mlp.experts.{{e}}.{old}.weight",
    )
    for projection, old, stack, half in (
        ("gate", "w1", "gate_up_proj", first_half),
        ("up", "w3", "gate_up_proj", second_half),
        ("down", "w2", "down_proj", None),
    )
}
# Of Mixtral and its followers the older names are the usual ones.
BLOCK_SPARSE_EXPERTS: dict[str, Names] = {
    projection: (f"block_sparse_moe.experts.{{e}}.{old}.weight", *EXPERTS[projection])
    for projection, old in (("gate", "w1"), ("up", "w3"), ("down", "w2"))
}
