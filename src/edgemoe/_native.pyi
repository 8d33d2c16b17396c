"""What the compiled module offers; only edgemoe.native imports it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float32]
_Bytes = NDArray[np.uint8]
_Ints = NDArray[np.int32]
_RecurrentSegment = tuple[int, int, _Floats | None, _Floats]

LAYOUT_VERSION: int
ROW_GROUP: int
BLOCK: int
FORMATS: tuple[tuple[str, int, bool, bool, bool, str | None, int, bool], ...]
DIRECT_ALIGNMENT: int

def record_parts(
    layout: tuple[str | None, str, str, int, int],
) -> list[tuple[str, int, int, int, int]]: ...

class Matrix:
    def __init__(self, packed: _Bytes, format: str, num_rows: int, num_cols: int) -> None: ...
    @property
    def packed(self) -> _Bytes: ...
    @property
    def format(self) -> str: ...
    @property
    def num_rows(self) -> int: ...
    @property
    def num_cols(self) -> int: ...

def packed_num_bytes(format: str, rows: int, cols: int) -> int: ...
def quantize_into(weights: _Floats, format: str, importance: _Floats | None, packed: _Bytes) -> None: ...
def refine_into(weights: _Floats, format: str, gram: _Floats, packed: _Bytes) -> None: ...
def pack_blocks_into(blocks: _Bytes, format: str, num_cols: int, packed: _Bytes) -> int: ...
def pack_mxfp4_into(nibbles: _Bytes, exponents: _Bytes, packed: _Bytes) -> int: ...
def written_type(format: str, num_cols: int) -> str | None: ...
def write_blocks_into(matrix: Matrix, blocks: _Bytes) -> None: ...
def dequantize_rows_into(matrix: Matrix, rows: _Ints, out: _Floats) -> None: ...
def matmul_into(x: _Floats, matrix: Matrix, out: _Floats) -> None: ...
def expert_ffn_into(
    x: _Floats,
    gate: Matrix | None,
    up: Matrix,
    down: Matrix,
    activation: str,
    rows: _Ints | None,
    biases: _Floats | None,
    out: _Floats,
) -> None: ...
def expert_ffns_of_token_into(
    x: _Floats,
    experts: Sequence[tuple[Matrix | None, Matrix, Matrix]],
    rows: list[int],
    activation: str,
    out: _Floats,
) -> None: ...
def available_isas() -> list[str]: ...
def active_isa() -> str: ...
def force_isa(name: str) -> None: ...
def set_num_threads(count: int) -> None: ...
def get_num_threads() -> int: ...
def keep_forever(object: object) -> None: ...
def rms_norm_into(x: _Floats, weight: _Floats, eps: float, out: _Floats) -> None: ...
def store_kv(cache: NDArray[Any], new: _Floats, start: int) -> None: ...
def attention_into(
    q: _Floats,
    keys: NDArray[Any],
    values: NDArray[Any],
    start: int,
    scale: float,
    window: int,
    num_keys: int,
    bias: _Floats | None,
    sinks: _Floats | None,
    out: _Floats,
) -> None: ...

class LatentLayer:
    def __init__(
        self,
        norm: _Floats,
        eps: float,
        q_a: tuple[tuple[Matrix, _Floats | None], _Floats] | None,
        q_b: Matrix,
        kv_a: tuple[Matrix, _Floats | None],
        kv_a_norm: _Floats,
        k_b: Matrix,
        v_b: Matrix,
        o: tuple[Matrix, _Floats | None],
        *,
        num_heads: int,
        plain_dim: int,
        rotary_dim: int,
        value_dim: int,
        scale: float,
        inner_eps: float,
        post_norm: _Floats | None = None,
        branch_scale: float = 1.0,
    ) -> None: ...
    def run(self, x: _Floats, segments: Sequence[tuple[Any, ...]]) -> None: ...

class _RecurrentMixer:
    record_width: int
    def run(
        self,
        x: _Floats,
        segments: Sequence[_RecurrentSegment],
        commits: bool,
        records: Sequence[_Floats | None] = (),
    ) -> None: ...
    def replay(
        self,
        record: _Floats,
        num_recorded: int,
        num_rows: int,
        state: _Floats | None,
        tail: _Floats,
    ) -> None: ...

class GatedDeltaNet(_RecurrentMixer):
    def __init__(
        self,
        norm: _Floats,
        eps: float,
        qkv: Matrix,
        z: Matrix,
        beta: Matrix,
        alpha: Matrix,
        decay: _Floats,
        dt_bias: _Floats,
        taps: _Floats,
        output_norm: _Floats,
        out: Matrix,
        *,
        num_key_heads: int,
        num_value_heads: int,
        key_dim: int,
        value_dim: int,
        branch_scale: float = 1,
    ) -> None: ...

class KimiDeltaNet(_RecurrentMixer):
    def __init__(
        self,
        norm: _Floats,
        eps: float,
        q: Matrix,
        k: Matrix,
        v: Matrix,
        forget: tuple[Matrix | None, Matrix],
        gate: tuple[Matrix | None, Matrix],
        beta: Matrix,
        decay: _Floats,
        dt_bias: _Floats,
        taps: _Floats,
        output_norm: _Floats,
        out: Matrix,
        *,
        num_heads: int,
        key_dim: int,
        value_dim: int,
        lowest_log: float = 0,
        branch_scale: float = 1,
    ) -> None: ...

class Mamba2(_RecurrentMixer):
    def __init__(
        self,
        norm: _Floats,
        eps: float,
        z: Matrix,
        mixed: Matrix,
        steps: Matrix,
        in_bias: _Floats | None,
        decay: _Floats,
        dt_bias: _Floats,
        skip: _Floats,
        taps: _Floats,
        conv_bias: _Floats | None,
        output_norm: _Floats,
        out: Matrix,
        out_bias: _Floats | None,
        *,
        num_heads: int,
        head_dim: int,
        num_groups: int,
        state_dim: int,
        step_low: float,
        step_high: float,
        branch_scale: float = 1,
    ) -> None: ...

class ShortConv(_RecurrentMixer):
    def __init__(
        self,
        norm: _Floats,
        eps: float,
        in_: Matrix,
        in_bias: _Floats | None,
        taps: _Floats,
        conv_bias: _Floats | None,
        out: Matrix,
        out_bias: _Floats | None,
        *,
        branch_scale: float = 1,
    ) -> None: ...

class AttentionLayer:
    def __init__(
        self,
        norm: _Floats,
        eps: float,
        q: tuple[Matrix, _Floats | None],
        k: tuple[Matrix, _Floats | None],
        v: tuple[Matrix, _Floats | None] | None,
        o: tuple[Matrix, _Floats | None],
        qk_norms: tuple[_Floats, _Floats] | None,
        *,
        has_norms_of_heads: bool,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        clip: float = 0,
        scale: float,
        window: int = 0,
        has_gate: bool = False,
        normalizes_values: bool = False,
        sinks: _Floats | None = None,
        post_norm: _Floats | None = None,
        branch_scale: float = 1,
        norm_bias: _Floats | None = None,
    ) -> None: ...
    def run(
        self,
        x: _Floats,
        segments: Sequence[
            tuple[
                int,
                int,
                NDArray[Any],
                NDArray[Any],
                int,
                tuple[_Floats, _Floats] | None,
                _Floats | None,
            ]
        ],
    ) -> None: ...

def layer_norm_into(x: _Floats, weight: _Floats, bias: _Floats, eps: float, out: _Floats) -> None: ...

class Router:
    def __init__(
        self,
        num_experts: int,
        top_k: int,
        score: str,
        choice_bias: _Floats | None,
        expert_scale: _Floats | None,
        num_groups: int,
        kept_groups: int,
        groups_by_highest: bool,
        renormalize: bool,
        sum_eps: float,
        is_eps_minimum: bool,
        scale: float,
        jitter: float,
    ) -> None: ...
    def choice_scores_in_place(self, logits: _Floats) -> None: ...

def choose_experts_into(
    x: _Floats,
    matrix: Matrix,
    bias: _Floats | None,
    router: Router,
    ids: _Ints,
    weights: _Floats,
    choice: _Floats,
) -> None: ...
def all_finite(x: _Floats) -> bool: ...
def squares_finite(x: _Floats) -> bool: ...
def combine_into(parts: _Floats, weights: _Floats, out: _Floats) -> None: ...
def aligned_empty(num_bytes: int) -> _Bytes: ...
def read_memory(words: NDArray[np.uint64]) -> int: ...
def punch_hole(descriptor: int, offset: int, num_bytes: int) -> None: ...
def open_files(
    method: str, paths: Sequence[bytes], max_depth: int, bytes_per_s: float, latency_s: float
) -> FileReader: ...
def open_block_files(
    paths: Sequence[str],
    records: Sequence[tuple[int, Sequence[tuple[int, int, str, int, int]]]],
    max_depth: int,
    is_direct: bool,
    bytes_per_s: float,
    latency_s: float,
) -> FileReader: ...

class Reader: ...

class FileReader(Reader):
    def submit(self, file: int, offset: int, out: _Bytes, priority: int) -> int: ...
    def begin(self) -> None: ...
    def wait(self, ticket: int) -> None: ...
    def wait_some(self, tickets: Sequence[int], block: bool) -> list[int]: ...
    def set_depth(self, depth: int) -> None: ...
    def cancel(self, ticket: int) -> bool: ...
    def close(self) -> None: ...

class TieredReader(Reader):
    def __init__(
        self,
        near: Reader,
        far: Reader,
        records: Sequence[tuple[int, int, int, int]],
        table: _Bytes,
        forget: Callable[[int], None],
    ) -> None: ...
    def submit(self, file: int, offset: int, out: _Bytes, priority: int) -> int: ...
    def begin(self) -> None: ...
    def wait(self, ticket: int) -> None: ...
    def wait_some(self, tickets: Sequence[int], block: bool) -> list[int]: ...
    def cancel(self, ticket: int) -> bool: ...
    def abandon(self, ticket: int) -> None: ...
    @property
    def near_bytes(self) -> int: ...

class UseStatistics:
    def __init__(
        self, num_bytes: Sequence[int], positions: Sequence[int], first_step: int, half_life_tokens: float
    ) -> None: ...
    def observe(self, position: int, expert_ids: _Ints) -> list[int]: ...
    def expect(self, position: int, uses: _Floats) -> None: ...
    def expect_from(
        self, position: int, x: _Floats, expert_ids: _Ints, weights: _Floats, head: Matrix
    ) -> None: ...
    def layers_until(self, experts: Sequence[int]) -> list[int]: ...
    def is_over(self, position: int) -> bool: ...
    def num_over(self) -> int: ...
    @property
    def clock(self) -> int: ...
    @property
    def frequency(self) -> NDArray[np.float64]: ...
    @property
    def expected(self) -> NDArray[np.float64]: ...

class EvictionPolicy:
    def __init__(self, depends_on_layer: bool) -> None: ...
    def worth(self, statistics: UseStatistics, candidates: Sequence[int]) -> list[float]: ...

def make_policy(name: str) -> EvictionPolicy: ...

class Residency:
    def __init__(
        self,
        statistics: UseStatistics,
        policy: EvictionPolicy,
        capacity_bytes: int,
        floor_share: float,
    ) -> None: ...
    def take(self, expert: int, is_demand: bool) -> list[int] | None: ...
    def drop(self, expert: int) -> None: ...
    def admit(self, expert: int) -> None: ...
    def missing(self, experts: Sequence[int]) -> list[int]: ...
    def pin(self, experts: Sequence[int]) -> None: ...
    def unpin(self, experts: Sequence[int]) -> None: ...
    def unpin_all(self) -> None: ...
    def reserve(self, experts: Sequence[int], is_reserved: bool) -> None: ...
    @property
    def capacity_bytes(self) -> int: ...
    @property
    def used_bytes(self) -> int: ...
    @property
    def is_resident(self) -> NDArray[np.bool_]: ...

class SlotArena:
    def __init__(self, capacity_bytes: int, record_sizes: Sequence[int]) -> None: ...
    def take(self, num_bytes: int) -> int: ...
    def give(self, slot: int) -> None: ...
    def buffer(self, slot: int, num_bytes: int) -> _Bytes: ...
    def slot_num_bytes(self, num_bytes: int) -> int: ...
    @property
    def touched_bytes(self) -> int: ...

class ExpertCache:
    def __init__(self, residency: Residency, arena: SlotArena, record_sizes: Sequence[int]) -> None: ...
    def reserve(self, expert: int, is_demand: bool = True) -> _Bytes | None: ...
    def admit(self, expert: int) -> None: ...
    def release(self, expert: int) -> None: ...
    def record(self, expert: int) -> _Bytes: ...
    def __contains__(self, expert: int) -> bool: ...
    def __len__(self) -> int: ...
    @property
    def holds_all(self) -> bool: ...

class PythonReader(Reader):
    def __init__(self, reader: object) -> None: ...

DEMAND_TRIES: int
MAX_REHEARSED: int

class LoadFailed(Exception): ...

class Predictor:
    def forecast(
        self, position: int, x: _Floats, expert_ids: _Ints, weights: _Floats, lookahead: int
    ) -> list[tuple[int, _Floats]]: ...

class PythonPredictor(Predictor):
    def __init__(self, predictor: object) -> None: ...

class GatePredictor(Predictor):
    def __init__(
        self,
        heads: Mapping[int, tuple[Matrix, list[tuple[int, int]]]],
        num_experts: Sequence[int],
        routers: Mapping[int, Router],
    ) -> None: ...

class TablePredictor(Predictor):
    def __init__(
        self,
        tables: Mapping[int, tuple[_Floats, _Floats, _Floats | None]],
        num_experts: Sequence[int],
    ) -> None: ...

class HybridPredictor(Predictor):
    def __init__(
        self, gate: Predictor, table: TablePredictor, table_weights: Mapping[int, float]
    ) -> None: ...

class StepPredictor(Predictor):
    def __init__(self, predictor: Predictor, first_step: int) -> None: ...

class Reads: ...

class PythonReads(Reads):
    def __init__(self, reads: object) -> None: ...

class LayerPace:
    def __init__(
        self,
        bytes_per_s: float,
        latency_s: float,
        handling_s: float,
        clock: Callable[[], float] | None = None,
    ) -> None: ...

class Speculation:
    def __init__(
        self,
        residency: Residency,
        reads: Reads,
        predictor: Predictor,
        pace: LayerPace,
        top_k: int,
        record_sizes: Sequence[int],
        max_rehearsed: int,
    ) -> None: ...
    def settle(self, position: int, num_tokens: int, chosen: Sequence[int]) -> list[int]: ...
    def start(self, position: int, x: _Floats, expert_ids: _Ints, weights: _Floats) -> None: ...
    def records(self, distance: int) -> list[tuple[int, list[int]]]: ...
    @property
    def is_on(self) -> bool: ...
    @property
    def num_reads(self) -> int: ...
    @property
    def wasted_bytes(self) -> int: ...

class Loads(Reads):
    def __init__(
        self,
        cache: ExpertCache,
        reader: Reader,
        places: Sequence[tuple[int, int]],
        verify: str,
        checksums: Sequence[int],
    ) -> None: ...
    @property
    def checksums(self) -> list[int]: ...
    def start(self, expert: int, priority: int = 0) -> bool: ...
    def begin(self) -> None: ...
    def demand(self, expert: int) -> None: ...
    def cancel(self, expert: int) -> bool: ...
    def poll(self) -> None: ...
    def wait(self, experts: Sequence[int]) -> list[int]: ...
    def make_room(self) -> None: ...
    def __contains__(self, expert: int) -> bool: ...
    @property
    def bytes_read(self) -> int: ...
    @property
    def pending_bytes(self) -> int: ...
    @property
    def demanded_bytes(self) -> int: ...
    @property
    def waited_s(self) -> float: ...

class ExpertStream:
    def __init__(
        self,
        statistics: UseStatistics,
        cache: ExpertCache,
        loads: Loads,
        layouts: Sequence[tuple[str | None, str, str, int, int]],
        layers: Sequence[tuple[str, _Floats | None, Matrix | None]],
        swaps_layers: bool,
    ) -> None: ...
    def run(
        self,
        position: int,
        x: _Floats,
        expert_ids: _Ints,
        weights: _Floats,
        out: _Floats,
        ahead: Speculation | None,
        rehearse: Callable[[_Floats], tuple[_Floats, _Floats, _Ints, _Floats] | None] | None,
        observe: Callable[[list[int], list[int], list[int]], None] | None,
    ) -> None: ...
    @property
    def num_hits(self) -> int: ...
    @property
    def num_misses(self) -> int: ...
