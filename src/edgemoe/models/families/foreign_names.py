"""Tensors that programs leave in checkpoints under names of their own, and what to do about them."""

from __future__ import annotations

import re
from collections.abc import Iterable

# What a whole name looks like, and what that says of the checkpoint; asked where names do not match.
_SIGNS = (
    (r".*\.(qweight|qzeros|g_idx)", "it is quantised by GPTQ or AWQ, and its"
     " config.json does not say how: fetch the config.json that has a quantization_config"),
    (r".*\.weight\.(absmax|quant_map|nested_absmax|quant_state\..*)", "it is quantised by bitsandbytes:"
     " convert the model it was made from"),
    (r".*\.(weight_packed|weight_shape|weight_zero_point)", "it is quantised by compressed-tensors, and"
     " its config.json does not say how: fetch the config.json that has a quantization_config"),
    (r".*\.scales", "it is quantised by MLX: convert the model it was made from"),
    (r".*\.switch_(mlp|glu)\..*", "it has MLX's layout: convert the model it was made from"),
    (r".*\.lora_[AB](\..*)?\.weight", "it is an adapter, or holds one: merge it into its base model"),
    (r"(.*\.)?base_layer\..*", "it holds an adapter that was not merged: merge it into its base model"),
    (r"(_orig_mod|module|_fsdp_wrapped_module|base_model\.model)\..*", "its names begin with those of a"
     " training program: load it with transformers and save it again"),
    (r"model\.(model\..*|lm_head\.weight)", "its names begin with those of a training program: load it with"
     " transformers and save it again"),
    (r"(embed_tokens\.weight|layers\.\d+\.self_attn\.q_proj\.weight)", "its names lack their 'model.', as"
     " those of a model without its head do: load it with transformers' AutoModelForCausalLM and save it"),
    (r"(score|classifier|classification_head)\..*", "it is a classifier, which answers with no text"),
    (r".*\._orig_mod\..*", "its names hold those of torch.compile: save the model that was compiled"),
    (r"(tok_embeddings\.weight|layers\.\d+\.attention\.wq\.weight)", "it has its makers' own layout: fetch"
     " the files that transformers reads"),
    (r"(model\.)?language_model\..*", "it is the text part of a model of several kinds of input; give the"
     " config.json that belongs to it"),
    (r"(thinker|vision_tower|visual|audio_tower|multi_modal_projector)\..*", "it holds towers of a model of"
     " several kinds of input; give the config.json that belongs to it"),
)  # fmt: skip


def foreign_names(names: Iterable[str]) -> str | None:
    """What the names say of the checkpoint; None where they say nothing."""
    stored = list(names)
    for pattern, what in _SIGNS:
        found = next((name for name in stored if re.fullmatch(pattern, name)), None)
        if found is not None:
            return f"{found} is there, so {what}"
    return None
