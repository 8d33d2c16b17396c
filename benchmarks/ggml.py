"""llama.cpp's tensor library, as llama-cpp-python installs it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np


class Ggml:
    """The few functions of ggml that quantise and multiply a matrix."""

    class _Parameters(ctypes.Structure):
        _fields_ = (("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))

    def __init__(self, folder: Path) -> None:
        self.base = ctypes.CDLL(str(folder / "libggml-base.so"), ctypes.RTLD_GLOBAL)
        self.cpu = ctypes.CDLL(str(folder / "libggml-cpu.so"), ctypes.RTLD_GLOBAL)
        self.base.ggml_init.argtypes = [self._Parameters]
        for name in ("ggml_init", "ggml_new_tensor_2d", "ggml_mul_mat", "ggml_new_graph", "ggml_get_data"):
            getattr(self.base, name).restype = ctypes.c_void_p

    def quantize(self, weights: np.ndarray, kind: int, row_bytes: int) -> np.ndarray:
        """Rows of packed bytes, without an importance matrix."""
        packed = np.empty((len(weights), row_bytes), np.uint8)
        source, target = (ctypes.c_void_p(a.ctypes.data) for a in (weights, packed))
        rows, cols = (ctypes.c_int64(n) for n in weights.shape)
        self.base.ggml_quantize_chunk(kind, source, target, ctypes.c_int64(0), rows, cols, None)
        return packed

    def product(self, packed: np.ndarray, kind: int, x: np.ndarray, num_threads: int) -> Callable[[], object]:
        """A call that multiplies packed rows and tokens."""
        size = packed.nbytes + 8 * x.nbytes + 8 * len(x) * len(packed) + 2**26
        context = ctypes.c_void_p(self.base.ggml_init(self._Parameters(size, None, False)))

        def tensor(type_number: int, rows: int, values: np.ndarray) -> ctypes.c_void_p:
            shape = ctypes.c_int64(x.shape[1]), ctypes.c_int64(rows)
            made = ctypes.c_void_p(self.base.ggml_new_tensor_2d(context, type_number, *shape))
            place = ctypes.c_void_p(self.base.ggml_get_data(made))
            ctypes.memmove(place, values.ctypes.data, values.nbytes)
            return made

        weights, tokens = tensor(kind, len(packed), packed), tensor(0, len(x), x)
        result = ctypes.c_void_p(self.base.ggml_mul_mat(context, weights, tokens))
        graph = ctypes.c_void_p(self.base.ggml_new_graph(context))
        self.base.ggml_build_forward_expand(graph, result)
        return lambda: self.cpu.ggml_graph_compute_with_ctx(context, graph, num_threads)


def find_ggml() -> Ggml | None:
    """The library inside llama-cpp-python, if that is installed."""
    spec = find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        return None
    return Ggml(Path(spec.origin).parent / "lib")
