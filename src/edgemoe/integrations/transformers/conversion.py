"""``edgemoe convert --experts-only``: the experts of any model of transformers as a store."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from edgemoe.checkpoint import CheckpointSource, GgufCheckpoint, open_checkpoint
from edgemoe.convert import ConversionReport, ExpertTensors
from edgemoe.convert import convert_experts as write_store
from edgemoe.errors import CheckpointError, UnsupportedModelError
from edgemoe.integrations.transformers.layouts import find_experts, shared_experts
from edgemoe.integrations.transformers.tensors import find_tensors
from edgemoe.progress import Progress
from edgemoe.quant import BitPlan, format_for_bits

_DEFAULT_BITS = "4"


def convert_experts(
    source: str | Path,
    out: str | Path,
    bits: str | int | None = None,
    *,
    plan: BitPlan | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ConversionReport:
    """Write a store of a checkpoint's experts, for ``EdgeMoEConfig``.

    Memory stays at a few experts. Interrupted, the same call goes on where it ended.

    Args:
        source: folder of a model that transformers loads, or its name on the Hub.
        out: the store, a new folder.
        bits: width of the weights: 2, 3, 4, 6, 8, "bf16", "f16" or "f32". Default: as stored in MXFP4 or
            NVFP4, else 4.
        plan: a width for every expert in place of ``bits``; layers are numbered as in experts.json.
        overwrite: replace ``out`` if it is a store.
        progress: told (done, total) in bytes of the store.

    Raises:
        UnsupportedModelError: transformers does not know the model, or it has no experts that we know.
        CheckpointError: the checkpoint is damaged, or lacks tensors.
        ConversionError: ``out`` exists, the disk is full, or another conversion writes there.
    """
    opened = open_checkpoint(source)
    try:
        if isinstance(opened, GgufCheckpoint):
            raise CheckpointError(f"{source}: transformers loads folders; give one, not a GGUF file")
        tensors = read_experts(opened)
        format = format_for_bits(bits or _DEFAULT_BITS)
        is_as_stored = bits is None and plan is None
        plan = plan or BitPlan.uniform(format, format)
        origin = {**plan.origin, "source": Path(source).absolute().name}
        return write_store(
            opened,
            tensors,
            out,
            replace(plan, origin=origin),
            keeps_exact=is_as_stored,
            overwrite=overwrite,
            progress=progress,
        )
    finally:
        opened.close()


def read_experts(source: CheckpointSource) -> ExpertTensors:
    """Which tensors of a checkpoint are experts, and of what.

    Raises:
        UnsupportedModelError, CheckpointError: as ``convert_experts``.
    """
    model = empty_model(source.config())
    experts = find_experts(model)
    shared = shared_experts(model, experts)
    return find_tensors(model, [found for found in experts if found.path not in shared], source)


def empty_model(config: Mapping[str, Any]) -> Any:
    """The model of a configuration as transformers makes it, without memory for weights.

    Raises:
        UnsupportedModelError: transformers does not know it.
    """
    name = str(config.get("model_type"))
    if name not in CONFIG_MAPPING:
        raise UnsupportedModelError(
            f"config.json: transformers {transformers.__version__} has no model type {name!r} of its own"
        )
    try:
        read = _read_config(config)
        kind = getattr(transformers, (config.get("architectures") or [""])[0], None)
        with torch.device("meta"):
            return kind(read) if kind is not None else _auto_class().from_config(read)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).replace("\n", " ")
        raise UnsupportedModelError(f"config.json: transformers cannot make this {name}: {reason}") from error


def _auto_class() -> Any:
    return transformers.AutoModelForCausalLM


def _read_config(config: Mapping[str, Any]) -> Any:
    """The configuration as transformers reads it, which knows numbers that JSON has not from files alone."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return transformers.AutoConfig.from_pretrained(folder)


def num_trunk_bytes(model: torch.nn.Module) -> int:
    """What the weights and buffers of a model take in memory; those that it has not are none."""
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return sum(math.prod(t.shape) * t.element_size() for t in tensors.values() if t.device.type == "cpu")
