"""The only door to compiled code."""

from edgemoe._native import (
    active_isa,
    available_isas,
    force_isa,
    get_num_threads,
    set_num_threads,
)
from edgemoe.native.expert_layer import ExpertLayerOutput, ExpertWeights
from edgemoe.native.io import DIRECT_ALIGNMENT, FileReader, aligned_empty
from edgemoe.native.matrix import (
    BLOCK,
    FORMATS,
    LAYOUT_VERSION,
    ROW_GROUP,
    ByteArray,
    FloatArray,
    Matrix,
    bits_per_weight,
    dequantize,
    dequantize_rows,
    expert_ffn,
    expert_ffns_of_token,
    matmul,
    packed_num_bytes,
    quantize,
)
from edgemoe.native.ops import IntArray, attention, combine, rms_norm, rope, route, store_kv

__all__ = [
    "BLOCK",
    "DIRECT_ALIGNMENT",
    "FORMATS",
    "LAYOUT_VERSION",
    "ROW_GROUP",
    "ByteArray",
    "ExpertLayerOutput",
    "ExpertWeights",
    "FileReader",
    "FloatArray",
    "IntArray",
    "Matrix",
    "active_isa",
    "aligned_empty",
    "attention",
    "available_isas",
    "bits_per_weight",
    "combine",
    "dequantize",
    "dequantize_rows",
    "expert_ffn",
    "expert_ffns_of_token",
    "force_isa",
    "get_num_threads",
    "matmul",
    "packed_num_bytes",
    "quantize",
    "rms_norm",
    "rope",
    "route",
    "set_num_threads",
    "store_kv",
]
