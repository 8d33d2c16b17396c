"""A store errs by its weights alone: the dequantised weights in transformers give the same logits."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from helpers.tiny_models import VOCAB_SIZE, build_model, write_checkpoint
from helpers.tolerances import F32_RELATIVE

import edgemoe
from edgemoe import native
from edgemoe.checkpoint import open_checkpoint
from edgemoe.convert import convert
from edgemoe.models import find_sources, read_spec
from edgemoe.quant import BitPlan

TOKENS = np.random.default_rng(5).integers(0, VOCAB_SIZE, 32)
# Activations of low-bit matrices are rounded to 8 bits a block: 0.4 % of the block's largest value at most,
# about 0.6 % of its norm; a dozen products in a row add up to a few times that, more where the softmax of a
# random model is sharp. The weights' own error is far larger at 2 and 3 bits: 13-27 % of their norm.
INT8_ACTIVATIONS_RELATIVE = 0.04
# All experts are chosen: rounding cannot flip a choice, so that every position can be compared.
ALL_EXPERTS = {"qwen3": 8, "qwen2": 8, "olmoe": 8, "mixtral": 4}


def round_trip(weights: np.ndarray, format: str) -> np.ndarray:
    weights = np.ascontiguousarray(weights, np.float32)
    return native.dequantize(native.quantize(weights, format), format, *weights.shape)


def dequantised_state(folder, format):
    """The checkpoint's tensors with every matrix replaced by what the store keeps of it."""
    source = open_checkpoint(folder)
    spec = read_spec(source.config())
    sources = find_sources(spec, {name: info.shape for name, info in source.tensors().items()})
    refs = [sources.dense[t.name] for t in spec.dense_tensors() if t.kind == "matrix"]
    state = {ref.name: round_trip(source.read(ref), format) for ref in [*refs, *sources.experts.values()]}
    source.close()
    return state


@pytest.mark.parametrize("format", [t.name for t in native.FORMAT_TRAITS.values() if t.is_rounded])
@pytest.mark.parametrize("variation", sorted(ALL_EXPERTS))
def test_logits_are_those_of_the_dequantised_weights(tmp_path, variation, format):
    chosen = {"num_experts_per_tok": ALL_EXPERTS[variation]}
    folder = write_checkpoint(tmp_path / "checkpoint", variation, **chosen)
    state = dequantised_state(folder, format)
    from safetensors.numpy import load_file, save_file

    save_file(
        {**load_file(folder / "model.safetensors"), **state}, folder / "model.safetensors", {"format": "pt"}
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        expected = model.eval()(torch.tensor(TOKENS[None])).logits[0].numpy()
    original = write_checkpoint(tmp_path / "original", variation, **chosen)
    convert(original, tmp_path / "store", BitPlan.uniform(format, format))
    with edgemoe.load(tmp_path / "store", "4GiB", context=32, kv_format="f32") as loaded:
        logits = loaded.logits(TOKENS.tolist())
    errors = np.linalg.norm(logits - expected, axis=1) / np.linalg.norm(expected, axis=1)
    if native.FORMAT_TRAITS[format].is_low_bit:
        assert np.median(errors) < INT8_ACTIVATIONS_RELATIVE
        assert errors.max() < 4 * INT8_ACTIVATIONS_RELATIVE
    else:
        assert errors.max() < F32_RELATIVE


def test_the_saved_model_is_the_built_one(tmp_path):
    folder = write_checkpoint(tmp_path, "qwen3")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    built = build_model("qwen3").state_dict()
    assert all(torch.equal(tensor, built[name]) for name, tensor in loaded.state_dict().items())
