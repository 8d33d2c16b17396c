"""Graphs of ggml's operations on tensors in memory, as llama.cpp builds them, run again and again."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ggml import Ggml
from numpy.typing import NDArray

KINDS = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(np.int32): 26}
# Room for what describes tensors and the graph itself, beside their data.
_ROOM = 2**24


class _Plan(ctypes.Structure):
    """How a graph is run: ggml_cplan."""

    _fields_ = (
        ("work_size", ctypes.c_size_t),
        ("work_data", ctypes.c_void_p),
        ("num_threads", ctypes.c_int),
        ("threadpool", ctypes.c_void_p),
        ("abort_callback", ctypes.c_void_p),
        ("abort_callback_data", ctypes.c_void_p),
        ("use_reference", ctypes.c_bool),
    )


@dataclass(frozen=True)
class Tensor:
    """A tensor of a graph, by its address."""

    address: int


class Graph:
    """Tensors and operations. Dimensions are ggml's: the one whose entries are neighbours comes first."""

    def __init__(self, ggml: Ggml, num_bytes: int) -> None:
        """``num_bytes``: of all tensors, results included."""
        self._base, self._cpu = ggml.base, ggml.cpu
        self._context = ggml.new_context(num_bytes + _ROOM)
        self._graph = ctypes.c_void_p(self.call("new_graph"))

    def call(self, name: str, *arguments: Any) -> int:
        """A function ``ggml_name`` of the context; whole numbers are passed in 64 bits."""
        function = self._base[f"ggml_{name}"]
        function.restype = ctypes.c_void_p
        return int(function(self._context, *map(_passed, arguments)))

    def op(self, name: str, *arguments: Any) -> Tensor:
        """The result of an operation, or a view."""
        return Tensor(self.call(name, *arguments))

    def add_sinks(self, attention: Tensor, sinks: Tensor) -> None:
        """Give attention one more score of each head, of nothing."""
        tensors = (ctypes.c_void_p(tensor.address) for tensor in (attention, sinks))
        self._base.ggml_flash_attn_ext_add_sinks(*tensors)

    def tensor(self, values: NDArray[Any]) -> Tensor:
        """A tensor of its own with these values; its dimensions are those of the array, reversed."""
        dims = (ctypes.c_int64 * values.ndim)(*reversed(values.shape))
        made = self.op("new_tensor", _C(KINDS[values.dtype]), _C(values.ndim), dims)
        self.array(made, values.shape, values.dtype)[...] = values
        return made

    def array(self, tensor: Tensor, shape: tuple[int, ...], dtype: Any = np.float32) -> NDArray[Any]:
        """The data of a tensor without gaps."""
        self._base.ggml_get_data.restype = ctypes.c_void_p
        address = self._base.ggml_get_data(ctypes.c_void_p(tensor.address))
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = (ctypes.c_uint8 * count).from_address(address)
        return np.frombuffer(memory, dtype).reshape(shape)

    def expand(self, tensor: Tensor) -> None:
        """Let the graph compute this, after all before."""
        self._base.ggml_build_forward_expand(self._graph, ctypes.c_void_p(tensor.address))

    def close(self) -> None:
        """Give the memory back; nothing of the graph may be used any more."""
        self._base.ggml_free(self._context)

    def planned(self, num_threads: int) -> Callable[[], None]:
        """A call that runs the graph."""
        plan_of = self._cpu.ggml_graph_plan
        plan_of.restype = _Plan
        plan = plan_of(self._graph, num_threads, None)
        work = np.empty(plan.work_size + 64, np.uint8)
        plan.work_data = work.ctypes.data

        def run() -> None:
            status = self._cpu.ggml_graph_compute(self._graph, ctypes.byref(plan))
            assert status == 0, f"ggml could not run its graph in {work.nbytes} bytes"

        return run


class _C(int):
    """A whole number that is passed in 32 bits."""


def _passed(value: Any) -> Any:
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.address)
    if value is None:
        return ctypes.c_void_p(None)
    if isinstance(value, _C):
        return ctypes.c_int(value)
    if isinstance(value, int):
        return ctypes.c_int64(value)
    if isinstance(value, float):
        return ctypes.c_float(value)
    return value
