"""Qwen2-MoE (shared expert, q/k/v bias) and Qwen3-MoE (norm per head, no shared expert)."""

from __future__ import annotations

from edgemoe.models.config_reader import ConfigReader
from edgemoe.models.families.fields import read_activation, read_model
from edgemoe.models.spec import (
    AttentionSpec,
    ExpertSpec,
    LayerSpec,
    MLPSpec,
    ModelSpec,
    MoESpec,
    RouterSpec,
    SharedExpertSpec,
)


def read_qwen2(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``qwen2_moe`` configuration."""
    num_layers = reader.require_size("num_hidden_layers")
    windows = _qwen2_windows(reader, num_layers)
    has_bias = bool(reader.optional("qkv_bias", True))
    shared = SharedExpertSpec(reader.require_size("shared_expert_intermediate_size"), is_gated=True)
    return _read(reader, windows, "none", (has_bias, False), shared)


def read_qwen3(reader: ConfigReader) -> ModelSpec:
    """Spec of a ``qwen3_moe`` configuration."""
    num_layers = reader.require_size("num_hidden_layers")
    # Kept by converters of older files; the family windows all layers or none.
    reader.optional("max_window_layers", None)
    window = int(reader.optional("sliding_window", 0))
    windows = [window if reader.optional("use_sliding_window", False) else 0] * num_layers
    has_bias = bool(reader.optional("attention_bias", False))
    return _read(reader, windows, "head", (has_bias, has_bias), None)


def _qwen2_windows(reader: ConfigReader, num_layers: int) -> list[int]:
    """Window per layer: by ``layer_types``, else every other layer below ``max_window_layers``."""
    window = int(reader.optional("sliding_window", 0))
    is_used = bool(reader.optional("use_sliding_window", False))
    limit = int(reader.optional("max_window_layers", 28))
    default = [
        "sliding_attention" if is_used and i % 2 == 0 and i < limit else "full_attention"
        for i in range(num_layers)
    ]
    types = reader.optional("layer_types", default)
    return [window if is_used and kind == "sliding_attention" else 0 for kind in types]


def _read(
    reader: ConfigReader,
    windows: list[int],
    qk_norm: str,
    biases: tuple[bool, bool],
    shared: SharedExpertSpec | None,
) -> ModelSpec:
    width = reader.require_size("hidden_size")
    num_heads = reader.require_size("num_attention_heads")
    head_dim = int(reader.optional("head_dim", width // num_heads))
    activation = read_activation(reader)
    moe = MoESpec(
        RouterSpec(
            reader.require_size("num_experts", "num_local_experts"),
            reader.require_size("num_experts_per_tok"),
            "softmax_then_pick",
            bool(reader.optional("norm_topk_prob", False)),
        ),
        ExpertSpec(reader.require_size("moe_intermediate_size"), activation),
        shared,
    )
    dense = MLPSpec(reader.require_size("intermediate_size"), activation)
    step = int(reader.optional("decoder_sparse_step", 1))
    only_dense = set(reader.optional("mlp_only_layers", []))
    layers = tuple(
        LayerSpec(
            AttentionSpec(
                num_heads,
                int(reader.optional("num_key_value_heads", num_heads)),
                head_dim,
                "head" if qk_norm == "head" else "none",
                *biases,
                window=window,
            ),
            dense if index in only_dense or (index + 1) % step else moe,
        )
        for index, window in enumerate(windows)
    )
    return read_model(reader, layers, default_eps=1e-6, default_theta=10000.0)
