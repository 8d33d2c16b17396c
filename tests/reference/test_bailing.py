"""Ling and Ring, which transformers lacks, against families of the same sums whose tensors are renamed.

Version 2 is GLM-4.5 with norms of queries and keys; version 1 without shared experts is Mixtral.
"""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from helpers.resident import logits_of
from helpers.tiny_models import VOCAB_SIZE, build_model, write_tokenizer
from helpers.tolerances import F32_RELATIVE, LLAMA_CPP_RELATIVE, median_relative, relative
from safetensors.numpy import save_file

from edgemoe.errors import UnsupportedModelError
from edgemoe.models import read_spec

TOKENS = np.random.default_rng(7).integers(0, VOCAB_SIZE, 40).astype(np.int32)
SECOND = {
    "model_type": "bailing_moe", "architectures": ["BailingMoeV2ForCausalLM"], "score_function": "sigmoid",
    "moe_router_enable_expert_bias": True, "router_dtype": "fp32", "use_qk_norm": True, "use_bias": False,
    "use_rmsnorm": True, "use_qkv_bias": False, "num_shared_experts": 2, "num_nextn_predict_layers": 0,
    "mtp_loss_scaling_factor": 0, "embedding_dropout": 0.0, "output_dropout": 0.0, "max_window_layers": 3,
    "moe_shared_expert_intermediate_size": 32, "partial_rotary_factor": 0.5,
}  # fmt: skip
FIRST = {
    "model_type": "bailing_moe", "architectures": ["BailingMoeForCausalLM"], "norm_topk_prob": True,
    "num_shared_experts": 0, "norm_head": False, "norm_softmax": False, "multi_gate": False,
    "first_k_dense_replace": 0, "use_bias": False, "use_qkv_bias": False,
}  # fmt: skip
RENAMED = (
    ("model.embed_tokens.", "model.word_embeddings."),
    ("self_attn.o_proj", "attention.dense"),
    ("self_attn.q_norm", "attention.query_layernorm"),
    ("self_attn.k_norm", "attention.key_layernorm"),
    ("mlp.gate.e_score_correction_bias", "mlp.gate.expert_bias"),
    ("block_sparse_moe.", "mlp."),
)
KEPT = (
    *(
        "hidden_size",
        "intermediate_size",
        "moe_intermediate_size",
        "num_hidden_layers",
        "n_group",
        "head_dim",
    ),
    *("num_attention_heads", "num_key_value_heads", "num_experts_per_tok", "topk_group", "vocab_size"),
    *("first_k_dense_replace", "routed_scaling_factor", "rms_norm_eps", "max_position_embeddings"),
)


def renamed(tensors):
    """The tensors as inclusionAI names them, queries, keys and values in one."""
    found = {}
    for name, values in tensors.items():
        for old, new in RENAMED:
            name = name.replace(old, new)
        found[name] = values
    for name in [n for n in found if n.endswith("experts.gate_up_proj")]:
        stack, prefix = found.pop(name), name.removesuffix("gate_up_proj")
        down = found.pop(f"{prefix}down_proj")
        for expert, (both, last) in enumerate(zip(stack, down, strict=True)):
            gate, up = np.split(both, 2)
            for kind, values in (("gate", gate), ("up", up), ("down", last)):
                found[f"{prefix}{expert}.{kind}_proj.weight"] = np.ascontiguousarray(values)
    for name in [n for n in found if re.search(r"self_attn\.q_proj\.weight", n)]:
        parts = [found.pop(name.replace("q_proj", f"{p}_proj")) for p in "qkv"]
        found[name.replace("self_attn.q_proj", "attention.query_key_value")] = np.concatenate(parts)
    return found


def write(folder, variation, own, **changes):
    """The folder, and the logits of the model whose tensors it has."""
    model = build_model(variation, **changes)
    with torch.no_grad():
        expected = model(torch.tensor(TOKENS[None].astype(np.int64))).logits[0].numpy()
    config = model.config.to_dict()
    rope = config["rope_parameters"]
    own = {key: config[key] for key in KEPT if key in config} | {"rope_theta": rope["rope_theta"]} | own
    own["num_experts"] = config.get("n_routed_experts") or config["num_local_experts"]
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(own))
    save_file(
        renamed({n: t.numpy().copy() for n, t in model.state_dict().items()}), folder / "model.safetensors"
    )
    write_tokenizer(folder)
    return folder, expected


def test_version_2_from_a_folder_and_from_gguf(tmp_path):
    # llama.cpp takes heads to be as wide as the model together.
    changes = {"attention_bias": False, "head_dim": 16}
    folder, expected = write(tmp_path / "hf", "glm4-groups-biases", SECOND, **changes)
    assert relative(logits_of(folder, TOKENS), expected) < F32_RELATIVE
    pytest.importorskip("gguf")
    from helpers.gguf_families import write_family_gguf

    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "bailing_moe_v2"}))
    assert relative(logits_of(folder, TOKENS), expected) < F32_RELATIVE
    rope = {"rope_theta": config["rope_theta"], "partial_rotary_factor": 0.5}
    (folder / "config.json").write_text(
        json.dumps(config | {"model_type": "bailing_moe_v2", "rope_parameters": rope})
    )
    path = write_family_gguf(folder, tmp_path / "model.gguf")
    assert relative(logits_of(path, TOKENS), expected) < F32_RELATIVE
    pytest.importorskip("llama_cpp")
    from helpers.llama_cpp_logits import llama_cpp_logits

    assert median_relative(expected, llama_cpp_logits(path, TOKENS)) < LLAMA_CPP_RELATIVE


def test_version_1_from_a_folder(tmp_path):
    changes = {"sliding_window": None, "tie_word_embeddings": False}
    folder, expected = write(tmp_path / "hf", "mixtral", FIRST, **changes)
    config = json.loads((folder / "config.json").read_text())
    config["moe_intermediate_size"] = config["intermediate_size"]
    (folder / "config.json").write_text(json.dumps(config))
    assert relative(logits_of(folder, TOKENS), expected) < F32_RELATIVE


@pytest.mark.parametrize(
    "change",
    [{"norm_head": True}, {"use_bias": True}, {"multi_gate": True}, {"score_function": "softmax"},
     {"norm_topk_prob": False}, {"moe_shared_expert_intermediate_size": 64}],
)  # fmt: skip
def test_what_would_be_another_model_is_refused(change):
    sizes = dict.fromkeys(("hidden_size", "vocab_size", "max_position_embeddings", "intermediate_size"), 64)
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 2, "moe_intermediate_size": 32}
    sizes |= {"num_experts": 8, "num_experts_per_tok": 2, "first_k_dense_replace": 1}
    read_spec(SECOND | sizes)
    with pytest.raises(UnsupportedModelError, match=next(iter(change))):
        read_spec(SECOND | sizes | change)
