"""Names of T5's tensors in Hugging Face's Switch checkpoints."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edgemoe.models.spec import ModelSpec
from edgemoe.source_ref import SourceRef

# Canonical part after "layers.{l}." → part after "{stack}.block.{l}.layer."; ffn is layer 1 of an encoder's
# block and layer 2 of a decoder's.
_LAYER_NAMES = {
    **{f"attention.{p}.weight": f"0.SelfAttention.{p}.weight" for p in "qkvo"},
    **{f"cross.{p}.weight": f"1.EncDecAttention.{p}.weight" for p in "qkvo"},
    "attention_norm.weight": "0.layer_norm.weight",
    "cross_norm.weight": "1.layer_norm.weight",
    "ffn_norm.weight": "{ffn}.layer_norm.weight",
    "router.weight": "{ffn}.mlp.router.classifier.weight",
    "router.bias": "{ffn}.mlp.router.classifier.bias",
    "mlp.up.weight": "{ffn}.mlp.wi.weight",
    "mlp.down.weight": "{ffn}.mlp.wo.weight",
}
_TOP_NAMES = {
    "head.weight": ("lm_head.weight",),
    "encoder_norm.weight": ("encoder.final_layer_norm.weight",),
    "encoder_bias.weight": ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",),
    "norm.weight": ("decoder.final_layer_norm.weight",),
    "bias.weight": ("decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",),
}
# With a head of its own each stack may have an embedding of its own too; "shared" is then looked at by none.
_TIED = {"embed.weight": ("shared.weight", "encoder.embed_tokens.weight")}
_UNTIED = {
    "embed.weight": ("decoder.embed_tokens.weight", "shared.weight"),
    "encoder_embed.weight": ("encoder.embed_tokens.weight", "shared.weight"),
}
# Copies of the embedding, and a table that early versions of transformers saved and never used.
_UNUSED = (
    "shared.weight",
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "lm_head.weight",
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
)


class SwitchNames:
    """See Naming."""

    def dense(self, spec: ModelSpec, canonical: str) -> Iterator[SourceRef]:
        """See Naming."""
        match = re.fullmatch(r"layers\.(\d+)\.(.+)", canonical)
        if match is None:
            own = _UNTIED if spec.has_encoder_embedding else _TIED
            yield from map(SourceRef, own.get(canonical) or _TOP_NAMES[canonical])
            return
        prefix, ffn = _block(spec, int(match[1]))
        yield SourceRef(f"{prefix}.{_LAYER_NAMES[match[2]].format(ffn=ffn)}")

    def expert(self, spec: ModelSpec, layer: int, expert: int, projection: str) -> Iterator[SourceRef]:
        """See Naming."""
        prefix, ffn = _block(spec, layer)
        matrix = {"up": "wi", "down": "wo"}[projection]
        yield SourceRef(f"{prefix}.{ffn}.mlp.experts.expert_{expert}.{matrix}.weight")

    def passed_over(self, spec: ModelSpec, name: str) -> str | None:
        """See Naming."""
        return "" if name in _UNUSED else None


def _block(spec: ModelSpec, layer: int) -> tuple[str, int]:
    if layer < spec.num_encoder_layers:
        return f"encoder.block.{layer}.layer", 1
    return f"decoder.block.{layer - spec.num_encoder_layers}.layer", 2
