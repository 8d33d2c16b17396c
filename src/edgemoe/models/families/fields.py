"""Configuration fields that all families spell alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from edgemoe.errors import UnsupportedModelError
from edgemoe.models.config_reader import ConfigReader, shown
from edgemoe.models.rope import promised_context
from edgemoe.models.rope_config import read_rope
from edgemoe.models.spec import (
    AttentionSpec,
    ExpertSpec,
    LayerSpec,
    MLPSpec,
    ModelSpec,
    MoESpec,
    RopeSpec,
    RouterSpec,
    SharedExpertSpec,
)

_OLD_KINDS = {"mamba": "linear_attention", "attention": "full_attention"}  # what older files say
_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
}


def read_activation(reader: ConfigReader, key: str = "hidden_act", default: str = "silu") -> str:
    """The activation in our words.

    Raises:
        UnsupportedModelError: it is none of those that there are.
    """
    name = reader.optional(key, default)
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise UnsupportedModelError(
            f"config.json: {key} = {shown(name)} is not supported; supported: " + ", ".join(_ACTIVATIONS)
        )
    return _ACTIVATIONS[name]


def read_model(
    reader: ConfigReader,
    layers: tuple[LayerSpec, ...],
    default_eps: float,
    default_theta: float,
    default_rope: Mapping[str, Any] | None = None,
    *,
    default_share: float | None = None,
    embed_scale: float = 1.0,
    head_scale: float = 1.0,
    has_layer_norms: bool = False,
    has_head_bias: bool = False,
) -> ModelSpec:
    """Embedding, norm, rope and head around the layers. ``default_share``: as of ``read_rope``."""
    rope = next((s.rope for s in layers if s.rope is not None), None)
    if rope is None:
        head_dims = [s.mixer.head_dim for s in layers if isinstance(s.mixer, AttentionSpec)]
        # Without attention nothing rotates; what the configuration says of it is checked all the same.
        head_dim = head_dims[0] if head_dims else _unused_head_dim(reader)
        rope = read_rope(reader, head_dim, default_theta, default_rope, default_share)
    rotated = [_rotated(layer, rope) for layer in layers]
    context = min(promised_context(layer.rope or rope) for layer in rotated)
    return ModelSpec(
        family=str(reader.require("model_type")),
        hidden_size=reader.require_size("hidden_size"),
        vocab_size=reader.require_size("vocab_size"),
        layers=tuple(_within(context, layer) for layer in rotated),
        norm_eps=reader.number("rms_norm_eps", default_eps),
        has_tied_head=reader.flag("tie_word_embeddings", False),
        max_context=context,
        embed_scale=embed_scale,
        head_scale=head_scale,
        has_layer_norms=has_layer_norms,
        has_head_bias=has_head_bias,
    )


def _unused_head_dim(reader: ConfigReader) -> int:
    """What attention would rotate of each head, of a model whose layers are all of other kinds."""
    usual = reader.require_size("hidden_size") // reader.require_size("num_attention_heads")
    return reader.size("qk_rope_head_dim", reader.size("head_dim", usual))


def read_attention(
    reader: ConfigReader,
    qk_norm: Literal["none", "head", "projection"] = "none",
    *,
    has_qkv_bias: bool = False,
    has_o_bias: bool = False,
    window: int = 0,
    score_scale: float | None = None,
) -> AttentionSpec:
    """Grouped-query attention by the keys that most families have."""
    num_heads = reader.require_size("num_attention_heads")
    return AttentionSpec(
        num_heads,
        reader.size("num_key_value_heads", num_heads),
        reader.size("head_dim", reader.require_size("hidden_size") // num_heads),
        qk_norm,
        has_qkv_bias,
        has_o_bias,
        window,
        score_scale=score_scale,
    )


def read_grouped_router(reader: ConfigReader) -> RouterSpec:
    """DeepSeek-V3's router (arXiv 2412.19437, section 2.1.2), by the keys that its followers have."""
    # dots.llm1 is published with the name of DeepSeek-V3's whole rule, which scores by the sigmoid.
    reader.refuse("scoring_func", ("sigmoid", "noaux_tc"), "the family scores experts by the sigmoid")
    reader.refuse("topk_method", ("noaux_tc",), "the family chooses experts with a bias, among groups")
    return RouterSpec(
        reader.require_size("n_routed_experts", "num_local_experts"),
        reader.require_size("num_experts_per_tok"),
        "sigmoid",
        reader.flag("norm_topk_prob", False),
        has_choice_bias=True,
        num_groups=reader.size("n_group", 1),
        kept_groups=reader.size("topk_group", 1),
        sum_eps=1e-20,
        scale=reader.number("routed_scaling_factor", 1.0),
    )


def read_moe(
    reader: ConfigReader, router: RouterSpec, num_shared: int = 0, *, has_shared_bias: bool = False
) -> MoESpec:
    """Experts of ``moe_intermediate_size``, with shared ones of the same width if there are any."""
    width, activation = reader.require_size("moe_intermediate_size"), read_activation(reader)
    shared = SharedExpertSpec(width * num_shared, activation, has_bias=has_shared_bias)
    return MoESpec(router, ExpertSpec(width, activation), shared if num_shared else None)


def read_mlp(reader: ConfigReader, *, has_bias: bool = False) -> MLPSpec:
    """A dense layer of ``intermediate_size``."""
    return MLPSpec(reader.require_size("intermediate_size"), read_activation(reader), has_bias=has_bias)


def read_kinds(
    reader: ConfigReader, known: Sequence[str], default: Sequence[str] = (), key: str = "layer_types"
) -> list[str]:
    """What each layer is, by a list of the configuration; without a default it must be there.

    Raises:
        UnsupportedModelError: it has another length, or another kind.
    """
    num_layers = reader.require_size("num_hidden_layers")
    kinds = [_OLD_KINDS.get(kind, kind) for kind in reader.names(key, default)]
    if len(kinds) != num_layers or not {*kinds} <= {*known}:
        raise UnsupportedModelError(
            f"config.json: {key} must say {' or '.join(known)} of each of the {num_layers} layers; it is"
            f" {shown(kinds)}"
        )
    return kinds


def read_is_dense(reader: ConfigReader, first_dense: int) -> list[bool]:
    """Which layers have no experts: by ``mlp_layer_types``, else the first so many."""
    num_layers = reader.require_size("num_hidden_layers")
    default = ["dense" if index < first_dense else "sparse" for index in range(num_layers)]
    kinds = read_kinds(reader, ("dense", "sparse"), default, "mlp_layer_types")
    return [kind == "dense" for kind in kinds]


def _rotated(layer: LayerSpec, rope: RopeSpec) -> LayerSpec:
    """The layer with this rotation, where its mixer is attention without one of its own."""
    if not isinstance(layer.mixer, AttentionSpec) or layer.mixer.rope is not None:
        return layer
    return replace(layer, mixer=replace(layer.mixer, rope=rope))


def _within(context: int, layer: LayerSpec) -> LayerSpec:
    """The layer without a window that is longer than any text."""
    if not isinstance(layer.mixer, AttentionSpec) or layer.mixer.window < context:
        return layer
    return replace(layer, mixer=replace(layer.mixer, window=0))


def read_qwen_layers(
    reader: ConfigReader,
    windows: list[int],
    qk_norm: Literal["none", "head", "projection"],
    biases: tuple[bool, bool],
    shared: SharedExpertSpec | None,
    renormalizes: bool | None = None,
) -> tuple[LayerSpec, ...]:
    """Layers of Qwen's mixtures: experts in every ``decoder_sparse_step``-th, dense networks elsewhere.

    ``renormalizes``: whether the weights of chosen experts sum to 1, where the family decides that.
    """
    width = reader.require_size("hidden_size")
    num_heads = reader.require_size("num_attention_heads")
    head_dim = reader.size("head_dim", width // num_heads)
    activation = read_activation(reader)
    moe = MoESpec(
        RouterSpec(
            reader.require_size("num_experts", "num_local_experts"),
            reader.require_size("num_experts_per_tok"),
            "softmax",
            reader.flag("norm_topk_prob", False) if renormalizes is None else renormalizes,
        ),
        ExpertSpec(reader.require_size("moe_intermediate_size"), activation),
        shared,
    )
    dense = MLPSpec(reader.require_size("intermediate_size"), activation)
    step = reader.size("decoder_sparse_step", 1)
    only_dense = set(reader.sizes("mlp_only_layers"))
    return tuple(
        LayerSpec(
            AttentionSpec(
                num_heads,
                reader.size("num_key_value_heads", num_heads),
                head_dim,
                qk_norm,
                *biases,
                window=window,
            ),
            dense if index in only_dense or (index + 1) % step else moe,
        )
        for index, window in enumerate(windows)
    )


def read_window(reader: ConfigReader) -> int:
    """Width of Qwen's window where one is used: null says none, a missing key the family's own."""
    return reader.size("sliding_window", 0 if reader.has("sliding_window") else 4096, at_least=0)
