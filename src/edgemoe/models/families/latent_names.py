"""Names of latent attention's tensors, and the steps from stored matrices to those of the absorbed form.

A checkpoint has one matrix of each head's keys and values, [N keys | C values] rows over the latent; the
absorbed form has the keys' transposed and the values' apart, both padded to what packed matrices need.
Letters as in models/mixers/latent.py.
"""

from __future__ import annotations

import numpy as np

from edgemoe.models.families.names import Name, Names, Steps
from edgemoe.models.mixers.latent import LatentSpec
from edgemoe.models.spec import ModelSpec
from edgemoe.source_ref import Indices, Reshaped, Step, TakeColumns, TakeRows, Transposed, half_rotation_rows


def _spec(spec: ModelSpec, layer: int) -> LatentSpec:
    mixer = spec.layers[layer].mixer
    assert isinstance(mixer, LatentSpec), "these are names of latent attention"
    return mixer


def _rotated_rows(num_heads: int, plain_dim: int, rotary_dim: int) -> TakeRows:
    """Rows of heads that have their rotated part last, its pairs half of it apart."""
    part = half_rotation_rows(1, rotary_dim, rotary_dim).order
    head = np.concatenate([np.arange(plain_dim), plain_dim + part])
    return TakeRows((np.arange(num_heads)[:, None] * len(head) + head).ravel())


def _queries(spec: ModelSpec, layer: int) -> Steps:
    latent = _spec(spec, layer)
    if not latent.pairs_side_by_side or latent.rope is None:
        return ()
    return (_rotated_rows(latent.num_heads, latent.plain_dim, latent.rotary_dim),)


def _latents(spec: ModelSpec, layer: int) -> Steps:
    latent = _spec(spec, layer)
    if not latent.pairs_side_by_side or latent.rope is None:
        return ()
    return (_rotated_rows(1, latent.latent_dim, latent.rotary_dim),)


def _padding(size: int, to: int) -> Indices:
    """The places 0 to ``size``, then -1 up to ``to`` of them."""
    return np.where(np.arange(to) < size, np.arange(to), -1)


def _padded_keys(latent: LatentSpec) -> tuple[Step, ...]:
    if latent.padded_plain_dim == latent.plain_dim:
        return ()
    return (TakeColumns(_padding(latent.plain_dim, latent.padded_plain_dim)),)


def _rows_of_heads(latent: LatentSpec, first: int, stride: int, size: int, to: int) -> TakeRows:
    """Of heads of ``stride`` rows each, ``size`` from the ``first`` on, padded ``to`` so many."""
    row = _padding(size, to)
    heads = np.arange(latent.num_heads)[:, None] * stride + first
    return TakeRows(np.where(row >= 0, heads + row, -1).ravel())


def _padded_latents(latent: LatentSpec) -> tuple[Step, ...]:
    size, to = latent.latent_dim, latent.padded_latent_dim
    return () if size == to else (_rows_of_heads(latent, 0, size, size, to),)


def _keys_of_both(spec: ModelSpec, layer: int) -> Steps:
    latent = _spec(spec, layer)
    plain, stride = latent.plain_dim, latent.plain_dim + latent.value_dim
    rows = _rows_of_heads(latent, 0, stride, plain, plain)
    return (rows, Transposed(latent.num_heads), *_padded_keys(latent), *_padded_latents(latent))


def _values_of_both(spec: ModelSpec, layer: int) -> Steps:
    latent = _spec(spec, layer)
    stride = latent.plain_dim + latent.value_dim
    return (_rows_of_heads(latent, latent.plain_dim, stride, latent.value_dim, latent.padded_value_dim),)


def _keys_apart(spec: ModelSpec, layer: int) -> Steps:
    """GGUF's (H, L, N): transposed already."""
    latent = _spec(spec, layer)
    shape = (latent.num_heads * latent.latent_dim, latent.plain_dim)
    stored = (latent.num_heads, latent.latent_dim, latent.plain_dim)
    return (Reshaped(shape, stored), *_padded_keys(latent), *_padded_latents(latent))


def _values_apart(spec: ModelSpec, layer: int) -> Steps:
    """GGUF's (H, C, L)."""
    latent = _spec(spec, layer)
    heads, size = latent.num_heads, latent.value_dim
    stored = (heads, size, latent.latent_dim)
    steps: Steps = (Reshaped((heads * size, latent.latent_dim), stored),)
    if latent.padded_value_dim == size:
        return steps
    return (*steps, _rows_of_heads(latent, 0, size, size, latent.padded_value_dim))


LATENT: dict[str, Names] = {
    "attention.q.weight": (Name("self_attn.q_proj.weight", _queries),),
    "attention.q_a.weight": ("self_attn.q_a_proj.weight",),
    "attention.q_a.bias": ("self_attn.q_a_proj.bias",),
    "attention.q_a_norm.weight": ("self_attn.q_a_layernorm.weight",),
    "attention.q_b.weight": (Name("self_attn.q_b_proj.weight", _queries),),
    "attention.kv_a.weight": (Name("self_attn.kv_a_proj_with_mqa.weight", _latents),),
    "attention.kv_a.bias": (Name("self_attn.kv_a_proj_with_mqa.bias", _latents),),
    "attention.kv_a_norm.weight": ("self_attn.kv_a_layernorm.weight",),
    "attention.k_b.weight": (Name("self_attn.kv_b_proj.weight", _keys_of_both),),
    "attention.v_b.weight": (Name("self_attn.kv_b_proj.weight", _values_of_both),),
}
GGUF_LATENT: dict[str, Names] = {
    "attention.q.weight": (Name("attn_q.weight", _queries),),
    "attention.q_a.weight": ("attn_q_a.weight",),
    "attention.q_a_norm.weight": ("attn_q_a_norm.weight",),
    "attention.q_b.weight": (Name("attn_q_b.weight", _queries),),
    "attention.kv_a.weight": (Name("attn_kv_a_mqa.weight", _latents),),
    "attention.kv_a_norm.weight": ("attn_kv_a_norm.weight",),
    # Older files have both in one.
    "attention.k_b.weight": (
        Name("attn_k_b.weight", _keys_apart),
        Name("attn_kv_b.weight", _keys_of_both),
    ),
    "attention.v_b.weight": (
        Name("attn_v_b.weight", _values_apart),
        Name("attn_kv_b.weight", _values_of_both),
    ),
}
