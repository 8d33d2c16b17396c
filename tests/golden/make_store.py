"""Makes tests/golden/store-v1, which every later version must read. Run it only for a new format version.

python tests/golden/make_store.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from edgemoe.checkpoint import MemoryCheckpoint
from edgemoe.convert import convert
from edgemoe.quant import BitPlan, ExpertFormats

FOLDER = Path(__file__).parent / "store-v1"
CONFIG = {
    "model_type": "qwen3_moe", "hidden_size": 64, "moe_intermediate_size": 32, "intermediate_size": 64,
    "num_experts": 4, "num_experts_per_tok": 2, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 32, "vocab_size": 40, "norm_topk_prob": True,
    "rms_norm_eps": 1e-6, "rope_theta": 1e4, "max_position_embeddings": 64, "tie_word_embeddings": True,
    "hidden_act": "silu",
}  # fmt: skip
PLAN = BitPlan(
    ExpertFormats("q2", "q3", "q4"),
    "q8",
    {
        (0, 1): ExpertFormats.uniform("q6"),
        (0, 2): ExpertFormats("q8", "bf16", "f16"),
        (0, 3): ExpertFormats.uniform("f32"),
    },
    {"kind": "golden"},
)
_SHAPES = {
    "model.embed_tokens.weight": (40, 64),
    "model.norm.weight": (64,),
    **{
        f"model.layers.0.{name}.weight": shape
        for name, shape in {
            "input_layernorm": (64,),
            "post_attention_layernorm": (64,),
            "self_attn.q_proj": (64, 64),
            "self_attn.k_proj": (32, 64),
            "self_attn.v_proj": (32, 64),
            "self_attn.o_proj": (64, 64),
            "self_attn.q_norm": (32,),
            "self_attn.k_norm": (32,),
            "mlp.gate": (4, 64),
        }.items()
    },
    **{
        f"model.layers.0.mlp.experts.{expert}.{name}_proj.weight": shape
        for expert in range(4)
        for name, shape in (("gate", (32, 64)), ("up", (32, 64)), ("down", (64, 32)))
    },
}


def weights() -> dict[str, np.ndarray]:
    """The weights behind the store: no random generator, whose stream a later NumPy may change."""
    arrays = {}
    for number, (name, shape) in enumerate(_SHAPES.items()):
        steps = np.arange(np.prod(shape), dtype=np.float64)
        arrays[name] = np.sin(steps * steps * 0.37 + number).astype(np.float32).reshape(shape)
    return arrays


if __name__ == "__main__":
    convert(MemoryCheckpoint(CONFIG, weights()), FOLDER, PLAN, overwrite=FOLDER.exists())
    print(json.dumps({path.name: path.stat().st_size for path in sorted(FOLDER.iterdir())}))
