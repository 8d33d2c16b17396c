"""llama.cpp's tensor library, as llama-cpp-python installs it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

Product = Callable[[], object]
# Number of the type that stands beside each of our formats, and its bytes per 256 weights.
RIVALS = {
    "t2": (10, 84),
    "q2": (10, 84),
    "t3": (11, 110),
    "q3": (11, 110),
    "q4": (12, 144),
    "q6": (14, 210),
    "q8": (8, 272),
}
# Where ggml_tensor keeps what the rearranged kernels know of it, in bytes from its beginning.
_EXTRA_OFFSET = 320


class Ggml:
    """The few functions of ggml that quantise and multiply a matrix."""

    class _Parameters(ctypes.Structure):
        _fields_ = (("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))

    def __init__(self, folder: Path) -> None:
        self.base = ctypes.CDLL(str(folder / "libggml-base.so"), ctypes.RTLD_GLOBAL)
        self.cpu = ctypes.CDLL(str(folder / "libggml-cpu.so"), ctypes.RTLD_GLOBAL)
        self.base.ggml_init.argtypes = [self._Parameters]
        for name in ("init", "new_tensor_2d", "mul_mat", "new_graph", "get_data"):
            getattr(self.base, f"ggml_{name}").restype = ctypes.c_void_p
        self.base.ggml_backend_alloc_ctx_tensors_from_buft.restype = ctypes.c_void_p
        # A C++ function: ggml_backend_cpu_repack_buffer_type().
        self._rearranging = self.cpu["_Z35ggml_backend_cpu_repack_buffer_typev"]
        self._rearranging.restype = ctypes.c_void_p

    def quantize(
        self, weights: np.ndarray, kind: int, row_bytes: int, importance: np.ndarray | None = None
    ) -> np.ndarray:
        """Rows of packed bytes; the importance of the columns is optional."""
        packed = np.empty((len(weights), row_bytes), np.uint8)
        source, target = (ctypes.c_void_p(a.ctypes.data) for a in (weights, packed))
        rows, cols = (ctypes.c_int64(n) for n in weights.shape)
        columns = None if importance is None else ctypes.c_void_p(importance.ctypes.data)
        self.base.ggml_quantize_chunk(kind, source, target, ctypes.c_int64(0), rows, cols, columns)
        return packed

    def product(self, packed: np.ndarray, kind: int, x: np.ndarray, num_threads: int) -> Product:
        """A call that multiplies packed rows and tokens, as they are."""
        context = self.new_context(packed.nbytes + 2**20, False)
        weights = self._tensor(context, kind, x.shape[1], len(packed))
        ctypes.memmove(self._data(weights), packed.ctypes.data, packed.nbytes)
        return self._product(weights, len(packed), x, num_threads)

    def rearranged_product(
        self, packed: np.ndarray, kind: int, x: np.ndarray, num_threads: int
    ) -> Product | None:
        """The same with the rows rearranged beforehand; None where there are no kernels for that."""
        weights = self._tensor(self.new_context(2**20, True), kind, x.shape[1], len(packed))
        context, buffer_type = weights[0], ctypes.c_void_p(self._rearranging())
        self.base.ggml_backend_alloc_ctx_tensors_from_buft(context, buffer_type)
        if not ctypes.c_void_p.from_address(weights[1].value + _EXTRA_OFFSET).value:
            return None
        source, size = ctypes.c_void_p(packed.ctypes.data), ctypes.c_size_t(packed.nbytes)
        self.base.ggml_backend_tensor_set(weights[1], source, ctypes.c_size_t(0), size)
        return self._product(weights, len(packed), x, num_threads)

    def _product(
        self,
        weights: tuple[ctypes.c_void_p, ctypes.c_void_p],
        num_rows: int,
        x: np.ndarray,
        num_threads: int,
    ) -> Product:
        context = self.new_context(8 * x.nbytes + 8 * len(x) * num_rows + 2**20)
        work = self.new_context(8 * x.nbytes + 2**26)  # each product takes from it anew
        tokens = self._tensor(context, 0, x.shape[1], len(x))
        ctypes.memmove(self._data(tokens), x.ctypes.data, x.nbytes)
        result = ctypes.c_void_p(self.base.ggml_mul_mat(context, weights[1], tokens[1]))
        graph = ctypes.c_void_p(self.base.ggml_new_graph(context))
        self.base.ggml_build_forward_expand(graph, result)

        def compute() -> None:
            self.base.ggml_reset(work)
            self.cpu.ggml_graph_compute_with_ctx(work, graph, num_threads)

        return compute

    def new_context(self, size: int, no_alloc: bool = False) -> ctypes.c_void_p:
        """Memory for tensors, which the process keeps."""
        return ctypes.c_void_p(self.base.ggml_init(self._Parameters(size, None, no_alloc)))

    def _tensor(
        self, context: ctypes.c_void_p, kind: int, cols: int, rows: int
    ) -> tuple[ctypes.c_void_p, ctypes.c_void_p]:
        """A tensor with the context it lives in."""
        shape = ctypes.c_int64(cols), ctypes.c_int64(rows)
        return context, ctypes.c_void_p(self.base.ggml_new_tensor_2d(context, kind, *shape))

    def _data(self, tensor: tuple[ctypes.c_void_p, ctypes.c_void_p]) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.base.ggml_get_data(tensor[1]))


def find_ggml() -> Ggml | None:
    """The library inside llama-cpp-python, if that is installed."""
    spec = find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        return None
    return Ggml(Path(spec.origin).parent / "lib")
