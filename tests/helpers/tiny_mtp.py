"""Tiny checkpoints with a layer that predicts further tokens, and what it means.

transformers reads none. The layer itself is one of its own models of one layer, which is given rows to start
from; what is around it is written here in NumPy, from arXiv 2412.19437, section 2.2.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from helpers.tiny_models import build_model, write_tokenizer

# By variation: what makes a model of one layer of it, and how checkpoints name it.
EXTRA, MODULE = "an extra layer", "a module"
KINDS = {
    "glm4": ({"first_k_dense_replace": 0}, EXTRA),
    "deepseek3": ({"first_k_dense_replace": 0}, EXTRA),
    "glm4-lite": ({"mlp_layer_types": ["sparse"]}, EXTRA),
    "glm4 wide": ({"first_k_dense_replace": 0}, EXTRA),  # rows that packed matrices fill up
    "qwen3-next": ({"layer_types": ["full_attention"]}, MODULE),
    "qwen3.5": ({"layer_types": ["full_attention"]}, MODULE),
}
_TOP = {
    EXTRA: ("enorm.weight", "hnorm.weight", "eh_proj.weight", "shared_head.norm.weight"),
    MODULE: ("mtp.pre_fc_norm_embedding.weight", "mtp.pre_fc_norm_hidden.weight", "mtp.fc.weight",
             "mtp.norm.weight"),
}  # fmt: skip


@dataclass(frozen=True)
class Reference:
    """What a checkpoint with such a layer predicts."""

    model: torch.nn.Module
    layer: torch.nn.Module  # a model of that one layer, with the model's head
    embed_norm: np.ndarray
    hidden_norm: np.ndarray
    join: np.ndarray
    eps: float
    hands_on_normed: bool

    def drafts(self, token_ids: list[int], count: int) -> list[np.ndarray]:
        """Logits (V,) of the token after the last, and of those after it if each is the likeliest."""
        tokens = torch.tensor([token_ids])
        with torch.no_grad():
            hidden = self.model.model(tokens).last_hidden_state[0].numpy()
        rows = [self._row(t, h) for t, h in zip(token_ids[1:], hidden, strict=False)]
        found = []
        for _ in range(count):
            with torch.no_grad():
                x = torch.from_numpy(np.stack(rows).astype(np.float32))[None]
                before = []
                hook = self.layer.model.norm.register_forward_pre_hook(
                    lambda _, args, kept=before: kept.append(args[0])
                )
                logits = self.layer(inputs_embeds=x).logits[0, -1]
                hook.remove()
                last = before[0][:, -1]
                handed = (self.layer.model.norm(last) if self.hands_on_normed else last)[0]
            found.append(logits.numpy())
            rows.append(self._row(int(logits.argmax()), handed.numpy()))
        return found

    def _row(self, token_id: int, hidden: np.ndarray) -> np.ndarray:
        embedded = self.model.model.embed_tokens.weight[token_id].detach().numpy()
        both = [self._normed(embedded, self.embed_norm), self._normed(hidden, self.hidden_norm)]
        return self.join @ np.concatenate(both)

    def _normed(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        x = x.astype(np.float64)
        return x / np.sqrt(np.mean(x * x) + self.eps) * weight


def write_mtp_checkpoint(folder: Path, variation: str) -> Reference:
    """Save a variation with such a layer as a Hugging Face folder."""
    changes, kind = KINDS[variation]
    variation, *is_wide = variation.split()
    size = {"hidden_size": 72} if is_wide else {}
    model = build_model(variation, **size)
    layer = build_model(variation, seed=7, num_hidden_layers=1, **changes, **size)
    layer.lm_head.weight.data = model.lm_head.weight.data.clone()
    model.save_pretrained(folder)
    layer.save_pretrained(folder / "layer")
    tensors = load_file(folder / "model.safetensors")
    own = load_file(folder / "layer" / "model.safetensors")
    number, width = model.config.num_hidden_layers, model.config.hidden_size
    prefix = f"model.layers.{number}." if kind == EXTRA else "mtp.layers.0."
    for name, tensor in own.items():
        if name.startswith("model.layers.0."):
            tensors[prefix + name.removeprefix("model.layers.0.")] = tensor
    rng = np.random.default_rng(3)
    norms = [rng.uniform(0.5, 1.5, width).astype(np.float32) for _ in range(2)]
    join = rng.normal(0, 0.15, (width, 2 * width)).astype(np.float32)
    before = prefix if kind == EXTRA else ""
    values = (*norms, join, own["model.norm.weight"])
    tensors |= {before + name: value for name, value in zip(_TOP[kind], values, strict=True)}
    if kind == EXTRA:  # copies of what it shares with the model
        tensors[f"{prefix}embed_tokens.weight"] = tensors["model.embed_tokens.weight"].copy()
        tensors[f"{prefix}shared_head.head.weight"] = tensors["lm_head.weight"].copy()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "num_nextn_predict_layers": 1} if kind == EXTRA else config)
    )
    write_tokenizer(folder)
    added = 1.0 if kind == MODULE else 0.0  # norms that are stored less one
    return Reference(
        model, layer, norms[0] + added, norms[1] + added, join, model.config.rms_norm_eps, kind == MODULE
    )
