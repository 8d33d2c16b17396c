"""What the compiled module offers; made by scripts/generate-stubs."""

from collections.abc import Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

import edgemoe._native

class AttentionLayer:
    def __init__(
        self,
        norm: NDArray[numpy.float32] | None,
        eps: float,
        q: tuple[edgemoe._native.Matrix, NDArray[numpy.float32] | None],
        k: tuple[edgemoe._native.Matrix, NDArray[numpy.float32] | None],
        v: tuple[edgemoe._native.Matrix, NDArray[numpy.float32] | None] | None,
        o: tuple[edgemoe._native.Matrix, NDArray[numpy.float32] | None],
        qk_norms: tuple[NDArray[numpy.float32], NDArray[numpy.float32]] | None,
        *,
        has_norms_of_heads: bool,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        clip: float = 0.0,
        scale: float,
        window: int = 0,
        has_gate: bool = False,
        normalizes_values: bool = False,
        sinks: NDArray[numpy.float32] | None = None,
        post_norm: NDArray[numpy.float32] | None = None,
        branch_scale: float = 1.0,
        norm_bias: NDArray[numpy.float32] | None = None,
        value_dim: int | None = None,
        value_scale: float = 1.0,
    ) -> None: ...
    @staticmethod
    def working_bytes(
        num_rows: int,
        num_keys: int,
        *,
        width: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        value_dim: int,
        has_gate: bool,
    ) -> int: ...
    def run(
        self,
        x: NDArray[numpy.float32],
        segments: Sequence[
            tuple[
                int,
                int,
                NDArray[Any],
                NDArray[Any],
                int,
                tuple[NDArray[numpy.float32], NDArray[numpy.float32]] | None,
                NDArray[numpy.float32] | None,
            ]
        ],
    ) -> None: ...

class GatedDeltaNet:
    def __init__(
        self,
        norm: NDArray[numpy.float32],
        eps: float,
        qkv: edgemoe._native.Matrix,
        z: edgemoe._native.Matrix,
        beta: edgemoe._native.Matrix,
        alpha: edgemoe._native.Matrix,
        decay: NDArray[numpy.float32],
        dt_bias: NDArray[numpy.float32],
        taps: NDArray[numpy.float32],
        output_norm: NDArray[numpy.float32],
        out: edgemoe._native.Matrix,
        *,
        num_key_heads: int,
        num_value_heads: int,
        key_dim: int,
        value_dim: int,
        branch_scale: float = 1.0,
        activation: str = "silu",
    ) -> None: ...
    @staticmethod
    def working_bytes(
        num_rows: int, *, width: int, num_key_heads: int, num_value_heads: int, key_dim: int, value_dim: int
    ) -> int: ...
    def run(
        self,
        x: NDArray[numpy.float32],
        segments: Sequence[tuple[int, int, NDArray[numpy.float32] | None, NDArray[numpy.float32]]],
        commits: bool,
        records: Sequence[NDArray[numpy.float32] | None] = [],
    ) -> None: ...
    @property
    def record_width(self) -> int: ...
    def replay(
        self,
        record: NDArray[numpy.float32],
        num_recorded: int,
        num_rows: int,
        state: NDArray[numpy.float32] | None,
        tail: NDArray[numpy.float32],
    ) -> None: ...

class KimiDeltaNet:
    def __init__(
        self,
        norm: NDArray[numpy.float32],
        eps: float,
        q: edgemoe._native.Matrix,
        k: edgemoe._native.Matrix,
        v: edgemoe._native.Matrix,
        forget: tuple[edgemoe._native.Matrix | None, edgemoe._native.Matrix],
        gate: tuple[edgemoe._native.Matrix | None, edgemoe._native.Matrix],
        beta: edgemoe._native.Matrix,
        decay: NDArray[numpy.float32],
        dt_bias: NDArray[numpy.float32],
        taps: NDArray[numpy.float32],
        output_norm: NDArray[numpy.float32],
        out: edgemoe._native.Matrix,
        *,
        num_heads: int,
        key_dim: int,
        value_dim: int,
        lowest_log: float = 0.0,
        branch_scale: float = 1.0,
        activation: str = "silu",
    ) -> None: ...
    @staticmethod
    def working_bytes(
        num_rows: int,
        *,
        width: int,
        num_heads: int,
        key_dim: int,
        value_dim: int,
        forget_rank: int,
        gate_rank: int,
    ) -> int: ...
    def run(
        self,
        x: NDArray[numpy.float32],
        segments: Sequence[tuple[int, int, NDArray[numpy.float32] | None, NDArray[numpy.float32]]],
        commits: bool,
        records: Sequence[NDArray[numpy.float32] | None] = [],
    ) -> None: ...
    @property
    def record_width(self) -> int: ...
    def replay(
        self,
        record: NDArray[numpy.float32],
        num_recorded: int,
        num_rows: int,
        state: NDArray[numpy.float32] | None,
        tail: NDArray[numpy.float32],
    ) -> None: ...

class LatentLayer:
    def __init__(
        self,
        norm: NDArray[numpy.float32],
        eps: float,
        q_a: tuple[tuple[edgemoe._native.Matrix, NDArray[numpy.float32] | None], NDArray[numpy.float32]]
        | None,
        q_b: edgemoe._native.Matrix,
        kv_a: tuple[edgemoe._native.Matrix, NDArray[numpy.float32] | None],
        kv_a_norm: NDArray[numpy.float32],
        k_b: edgemoe._native.Matrix,
        v_b: edgemoe._native.Matrix,
        o: tuple[edgemoe._native.Matrix, NDArray[numpy.float32] | None],
        *,
        num_heads: int,
        plain_dim: int,
        rotary_dim: int,
        value_dim: int,
        scale: float,
        inner_eps: float,
        post_norm: NDArray[numpy.float32] | None = None,
        branch_scale: float = 1.0,
        gate: edgemoe._native.Matrix | None = None,
    ) -> None: ...
    @staticmethod
    def working_bytes(
        num_rows: int,
        num_keys: int,
        *,
        width: int,
        num_heads: int,
        query_rank: int,
        latent_dim: int,
        plain_dim: int,
        rotary_dim: int,
        value_dim: int,
    ) -> int: ...
    def run(
        self,
        x: NDArray[numpy.float32],
        segments: Sequence[
            tuple[int, int, NDArray[Any], int, tuple[NDArray[numpy.float32], NDArray[numpy.float32]] | None]
        ],
    ) -> None: ...

class Mamba2:
    def __init__(
        self,
        norm: NDArray[numpy.float32],
        eps: float,
        z: edgemoe._native.Matrix,
        mixed: edgemoe._native.Matrix,
        steps: edgemoe._native.Matrix,
        in_bias: NDArray[numpy.float32] | None,
        decay: NDArray[numpy.float32],
        dt_bias: NDArray[numpy.float32],
        skip: NDArray[numpy.float32],
        taps: NDArray[numpy.float32],
        conv_bias: NDArray[numpy.float32] | None,
        output_norm: NDArray[numpy.float32],
        out: edgemoe._native.Matrix,
        out_bias: NDArray[numpy.float32] | None,
        *,
        num_heads: int,
        head_dim: int,
        num_groups: int,
        state_dim: int,
        step_low: float,
        step_high: float,
        branch_scale: float = 1.0,
        activation: str = "silu",
    ) -> None: ...
    @staticmethod
    def working_bytes(
        num_rows: int, *, width: int, num_heads: int, head_dim: int, num_groups: int, state_dim: int
    ) -> int: ...
    def run(
        self,
        x: NDArray[numpy.float32],
        segments: Sequence[tuple[int, int, NDArray[numpy.float32] | None, NDArray[numpy.float32]]],
        commits: bool,
        records: Sequence[NDArray[numpy.float32] | None] = [],
    ) -> None: ...
    @property
    def record_width(self) -> int: ...
    def replay(
        self,
        record: NDArray[numpy.float32],
        num_recorded: int,
        num_rows: int,
        state: NDArray[numpy.float32] | None,
        tail: NDArray[numpy.float32],
    ) -> None: ...

class ShortConv:
    def __init__(
        self,
        norm: NDArray[numpy.float32],
        eps: float,
        in_: edgemoe._native.Matrix,
        in_bias: NDArray[numpy.float32] | None,
        taps: NDArray[numpy.float32],
        conv_bias: NDArray[numpy.float32] | None,
        out: edgemoe._native.Matrix,
        out_bias: NDArray[numpy.float32] | None,
        *,
        branch_scale: float = 1.0,
    ) -> None: ...
    @staticmethod
    def working_bytes(num_rows: int, *, width: int) -> int: ...
    def run(
        self,
        x: NDArray[numpy.float32],
        segments: Sequence[tuple[int, int, NDArray[numpy.float32] | None, NDArray[numpy.float32]]],
        commits: bool,
        records: Sequence[NDArray[numpy.float32] | None] = [],
    ) -> None: ...
    @property
    def record_width(self) -> int: ...
    def replay(
        self,
        record: NDArray[numpy.float32],
        num_recorded: int,
        num_rows: int,
        state: NDArray[numpy.float32] | None,
        tail: NDArray[numpy.float32],
    ) -> None: ...
