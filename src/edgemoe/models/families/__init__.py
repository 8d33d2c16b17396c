"""Model families: a file for each says how it reads its configuration and names its tensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from edgemoe.errors import CheckpointError, UnsupportedModelError
from edgemoe.models.config_reader import ConfigReader, shown
from edgemoe.models.families import (
    bailing_hybrid,
    bailing_moe,
    deepseek_v2,
    deepseek_v3,
    dots1,
    ernie4_5_moe,
    flex_olmo,
    gemma4,
    glm4_moe,
    glm4_moe_lite,
    gpt_oss,
    granitemoe,
    granitemoehybrid,
    hy_v3,
    kimi_linear,
    lfm2_moe,
    mimo_v2,
    minimax_m2,
    mixtral,
    nemotron_h,
    olmoe,
    phimoe,
    qwen2_moe,
    qwen3_5_moe,
    qwen3_moe,
    qwen3_next,
    qwen3_vl_moe,
    solar_open,
    switch,
)
from edgemoe.models.families.family import Family, gguf_mtp_names
from edgemoe.models.families.foreign_names import foreign_names
from edgemoe.models.families.gguf_names import GgufFamily
from edgemoe.models.families.names import NameTable
from edgemoe.models.families.sources import TensorSources, match_mtp, match_sources
from edgemoe.models.mtp import MtpSpec, mtp_spec
from edgemoe.models.spec import ModelSpec
from edgemoe.models.spec_check import check_spec
from edgemoe.source_ref import Shape, SourceRef

__all__ = [
    "ALL_FAMILIES",
    "FAMILIES",
    "Family",
    "GgufFamily",
    "TensorSources",
    "family_of",
    "find_mtp",
    "find_sources",
    "mtp_of",
    "read_spec",
    "stored_head",
]

ALL_FAMILIES: tuple[Family, ...] = (
    bailing_hybrid.FAMILY,
    bailing_moe.FAMILY,
    deepseek_v2.FAMILY,
    deepseek_v3.FAMILY,
    dots1.FAMILY,
    ernie4_5_moe.FAMILY,
    flex_olmo.FAMILY,
    gemma4.FAMILY,
    glm4_moe.FAMILY,
    glm4_moe_lite.FAMILY,
    gpt_oss.FAMILY,
    granitemoe.FAMILY,
    granitemoe.SHARED_FAMILY,
    granitemoehybrid.FAMILY,
    hy_v3.FAMILY,
    kimi_linear.FAMILY,
    lfm2_moe.FAMILY,
    mimo_v2.FAMILY,
    minimax_m2.FAMILY,
    mixtral.FAMILY,
    nemotron_h.FAMILY,
    olmoe.FAMILY,
    phimoe.FAMILY,
    qwen2_moe.FAMILY,
    qwen3_5_moe.FAMILY,
    qwen3_moe.FAMILY,
    qwen3_next.FAMILY,
    qwen3_vl_moe.FAMILY,
    solar_open.FAMILY,
    switch.FAMILY,
)
FAMILIES: Mapping[str, Family] = {name: family for family in ALL_FAMILIES for name in family.model_types}
_HOLDERS: Mapping[str, Family] = {name: family for family in ALL_FAMILIES for name in family.holders}
# What the configuration around a text's holds: other towers, and tokens that stand for what they see.
_OUTER_KEYS = (
    *("text_config", "vision_config", "audio_config", "image_token_id", "video_token_id", "audio_token_id"),
    *("vision_start_token_id", "vision_end_token_id", "image_token_index", "video_token_index"),
    *("boi_token_id", "eoi_token_id", "boa_token_id", "eoa_token_id", "vision_soft_tokens_per_image"),
    "tie_word_embeddings",
)
# A tensor that every GGUF file of a language model has.
_GGUF_SIGN = "token_embd.weight"


def family_of(spec: ModelSpec) -> Family:
    """The family that a spec was read for."""
    return FAMILIES[spec.family]


def read_spec(config: Mapping[str, Any]) -> ModelSpec:
    """The ModelSpec of a Hugging Face configuration.

    Raises:
        UnsupportedModelError: unknown family, key or value; the message names it.
    """
    config = _text_config(config)
    name = config.get("model_type")
    if not name:
        raise UnsupportedModelError("config.json: model_type is missing; fetch the model's own config.json")
    if not isinstance(name, str) or name not in FAMILIES:
        raise UnsupportedModelError(
            f"config.json: model_type {shown(name)} is not supported; supported: {', '.join(FAMILIES)}"
        )
    family = FAMILIES[name]
    reader = ConfigReader(config, family.defaults)
    for key in family.unused:
        reader.optional(key, None)
    if not family.has_encoder:
        reader.refuse("is_encoder_decoder", (False,), "the family is a decoder")
    reader.refuse("quantization", (), "it is quantised by MLX; convert the model it was made from")
    _refuse_quantised(reader)
    try:
        spec = family.read(reader)
    except UnsupportedModelError:
        raise
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise UnsupportedModelError(f"config.json: a value is not of its kind: {error}") from error
    reader.finish()
    check_spec(spec)
    return spec


def _refuse_quantised(reader: ConfigReader) -> None:
    """Methods that are read have been taken out of the configuration by who reads the tensors."""
    settings = reader.optional("quantization_config", None)
    if settings is None:
        return
    if not isinstance(settings, Mapping) or not settings.get("quant_method"):
        raise UnsupportedModelError(
            f"config.json: quantization_config = {shown(settings)} names no method; fetch it again"
        )
    method = settings["quant_method"]
    raise UnsupportedModelError(
        f"config.json: it is quantised by {shown(method)}, which is not read; fp8, gptq, awq, auto-round,"
        " compressed-tensors, mxfp4, mxfp8 and modelopt are. Convert the model it was made from"
    )


def find_sources(spec: ModelSpec, shapes: Mapping[str, Shape]) -> TensorSources:
    """Match the spec's tensors to the names and shapes of a checkpoint: Hugging Face's or GGUF's.

    Raises:
        MissingTensorError: a tensor the spec needs is not there.
        UnusedTensorError: a stored tensor is not needed, so the model is not what its configuration says.
        CheckpointError: a tensor has another shape than the configuration implies.
    """
    family = family_of(spec)
    is_gguf = family.gguf is not None and _GGUF_SIGN in shapes
    naming = family.gguf.names if is_gguf and family.gguf else family.names
    try:
        return match_sources(spec, naming, shapes)
    except CheckpointError as error:
        what = foreign_names(shapes)
        if what is None:
            raise
        raise type(error)(f"{error}; {what}") from error


def mtp_of(spec: ModelSpec) -> MtpSpec | None:
    """What a layer for further tokens is made of in a model's family; None where it is not run."""
    mtp = family_of(spec).mtp
    return None if mtp is None else mtp_spec(spec, mtp.hands_on_normed)


def find_mtp(spec: ModelSpec, shapes: Mapping[str, Shape]) -> tuple[MtpSpec, TensorSources] | None:
    """The layer for further tokens that a checkpoint has; None where there is none, or not all of it."""
    family, mtp = family_of(spec), mtp_of(spec)
    if mtp is None or family.mtp is None or not isinstance(family.names, NameTable):
        return None
    if family.gguf is not None and _GGUF_SIGN in shapes:
        naming = gguf_mtp_names(family.gguf.names, spec)
    else:
        naming = family.mtp.names(family.names, spec)
    try:
        return mtp, match_mtp(mtp, naming, shapes)
    except CheckpointError:
        return None


def stored_head(spec: ModelSpec, names: Collection[str]) -> SourceRef | None:
    """Where a checkpoint with these tensors has a head of its own; None where it has none."""
    family = family_of(spec)
    naming = family.gguf.names if family.gguf and _GGUF_SIGN in names else family.names
    untied = replace(spec, has_tied_head=False)
    return next((ref for ref in naming.dense(untied, "head.weight") if ref.name in names), None)


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part that a model of text reads, of a configuration that may hold towers beside it."""
    text = config.get("text_config")
    if not isinstance(text, Mapping):
        return config
    holder = str(config.get("model_type"))
    if holder in FAMILIES and holder not in _HOLDERS:
        raise UnsupportedModelError(
            f"config.json: {holder} has no text_config; fetch the model's own config.json"
        )
    if holder not in _HOLDERS:
        raise UnsupportedModelError(
            f"config.json: model_type {holder!r} is not supported; supported: "
            + ", ".join((*FAMILIES, *_HOLDERS))
        )
    outer = ConfigReader(config)
    for key in _OUTER_KEYS:
        outer.optional(key, None)
    quantization = outer.optional("quantization_config", None)
    outer.finish()
    inner = {"model_type": _HOLDERS[holder].model_types[0], **text}
    if quantization is not None:
        inner.setdefault("quantization_config", quantization)
    # What ties the head is said outside by some and inside by others.
    if config.get("tie_word_embeddings") is not None:
        inner["tie_word_embeddings"] = config["tie_word_embeddings"]
    return inner
