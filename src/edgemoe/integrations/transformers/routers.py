"""Forecasts from a torch trunk: the routers of the next layers, applied to what a layer's experts are given.

The residual stream changes little from layer to layer, the weights of the norm before the router may change
much: they are exchanged. Where a trunk shows no such router or norm, the forecast is worse or is left out,
which costs time and changes no result.

Letters: D width, E experts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from edgemoe import native
from edgemoe.engine.prediction import LOOKAHEAD
from edgemoe.experts import GateHead, GatePredictor, NoPredictor, Predictor, num_gate_columns
from edgemoe.native import FloatArray, Matrix, Router

# What stands before a router, in the order of preference.
_NORMS = (
    "pre_feedforward_layernorm_2",
    "pre_feedforward_layernorm",
    "post_attention_layernorm",
    "pre_mlp_layernorm",
    "ffn_norm",
    "layer_norm",
)
_CHOICE_BIAS = "e_score_correction_bias"
_TOP_K = ("num_experts_per_tok", "moe_top_k", "top_k", "num_experts_per_token", "moe_topk", "moe_k")
_DEFAULT_TOP_K = 2


@dataclass(frozen=True)
class _Seen:
    """The router of a layer: rows (E, D), bias (E,) and choice bias (E,), and its norm's weights (D,)."""

    weight: FloatArray
    bias: FloatArray | None
    choice_bias: FloatArray | None
    norm: FloatArray


def find_top_k(model: nn.Module, paths: Sequence[str]) -> int:
    """How many experts a token chooses, as far as a model tells."""
    for path in paths:
        parent = model.get_submodule(path.rpartition(".")[0])
        for module in (parent, *parent.children()):
            for name in _TOP_K:
                value = getattr(module, name, None)
                if isinstance(value, int) and value > 0:
                    return value
    return _DEFAULT_TOP_K


def build_predictor(
    model: nn.Module, paths: Sequence[str], num_experts: Sequence[int], top_k: int
) -> Predictor:
    """A predictor of the layers at these paths of a model whose weights are loaded."""
    routers = {position: _see(model, path, num_experts[position]) for position, path in enumerate(paths)}
    heads = dict(_heads(paths, num_experts, routers))
    if not heads:
        return NoPredictor()
    rules = {
        position: Router(num_experts[position], top_k, "sigmoid", choice_bias=seen.choice_bias)
        for position, seen in routers.items()
        if seen is not None and seen.choice_bias is not None
    }
    return GatePredictor(heads, list(num_experts), rules)


def _heads(
    paths: Sequence[str], num_experts: Sequence[int], routers: dict[int, _Seen | None]
) -> Iterator[tuple[int, GateHead]]:
    for position, path in enumerate(paths):
        own = routers[position]
        if own is None:
            continue
        rows, targets = [], []
        for ahead in range(position + 1, min(position + 1 + LOOKAHEAD, len(paths))):
            other = routers[ahead]
            if other is None or _stack(paths[ahead]) != _stack(path) or other.norm.shape != own.norm.shape:
                break
            rows.append(_rows(own, other, num_experts[position]))
            targets.append((ahead, num_experts[ahead]))
        if rows:
            matrix = np.concatenate(rows)
            packed = native.quantize(matrix, "f32")
            yield position, GateHead(Matrix(packed, "f32", *matrix.shape), targets)


def _stack(path: str) -> str:
    """The same for layers that follow each other."""
    return re.sub(r"\d+", "*", path)


def _rows(own: _Seen, other: _Seen, num_experts: int) -> FloatArray:
    """The router of another layer for what this one's sees: (E, columns of a gate head)."""
    width = len(own.norm)
    ratio = np.divide(other.norm, own.norm, out=np.zeros_like(own.norm), where=own.norm != 0)
    padding = num_gate_columns(width, num_experts) - width
    found: FloatArray = np.pad(other.weight * ratio, ((0, 0), (0, padding)))
    if other.bias is not None:
        found[:, width + num_experts] = other.bias
    return found


def _see(model: nn.Module, path: str, num_experts: int) -> _Seen | None:
    """The router beside the experts at a path; None where there is none that we can read."""
    parent_path = path.rpartition(".")[0]
    parent = model.get_submodule(parent_path)
    tensors = {**dict(parent.named_parameters()), **dict(parent.named_buffers())}
    width: int = model.get_submodule(path).hidden_dim  # type: ignore[assignment]
    name = next((n for n, t in tensors.items() if tuple(t.shape) == (num_experts, width)), None)
    if name is None:
        return None
    bias = tensors.get(f"{name.rpartition('.')[0]}.bias")
    choice = next((t for n, t in tensors.items() if n.endswith(_CHOICE_BIAS)), None)
    return _Seen(
        _values(tensors[name]),
        None if bias is None or bias.shape != (num_experts,) else _values(bias),
        None if choice is None or choice.numel() != num_experts else _values(choice).reshape(-1),
        _norm_weights(model, parent_path, width),
    )


def _norm_weights(model: nn.Module, parent_path: str, width: int) -> FloatArray:
    """What the norm before a router multiplies by (D,); ones where it is not found.

    Found by what it does: alternating ones have a mean of 0 and a root mean square of 1.
    """
    layer = model.get_submodule(parent_path.rpartition(".")[0])
    norm = next(
        (getattr(layer, name) for name in _NORMS if isinstance(getattr(layer, name, None), nn.Module)), None
    )
    weight = getattr(norm, "weight", None)
    if norm is None or weight is None or weight.shape != (width,):
        return np.ones(width, np.float32)
    signs = 1 - 2 * (torch.arange(width, device=weight.device) % 2)
    with torch.no_grad():
        return _values(norm(signs.to(weight.dtype)[None])[0] * signs)


def _values(tensor: torch.Tensor) -> FloatArray:
    return np.ascontiguousarray(tensor.detach().float().cpu().numpy())
