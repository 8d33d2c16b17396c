"""What the kinds of mixers have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from ggml import Ggml
from ggml_graph import Graph, Tensor
from numpy.typing import NDArray

from edgemoe import native

Run = Callable[[], object]
CONTEXT = 4096  # tokens before those that are timed


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Numbers of variance 1, the same for the same shape."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def packed(weights: NDArray[np.float32]) -> native.Matrix:
    """A matrix in full precision, for what is compared and not timed."""
    filled = np.pad(weights, ((0, 0), (0, -weights.shape[1] % native.BLOCK)))
    return native.Matrix(native.quantize(filled, "f32"), "f32", *filled.shape)


class Kind(Protocol):
    """One sort of layer of one model; ``layers``: how many of them the model has."""

    title: str
    model: str
    layers: int

    def bytes_read(self, num_tokens: int) -> int:
        """What one layer must read of its state, for so many tokens at a time."""
        ...

    def ours(self, num_tokens: int, layers: int) -> tuple[Run, Callable[[], NDArray[Any]]]:
        """A call that runs so many layers with a state each, and what gives the results of the first."""
        ...

    def rival(
        self, ggml: Ggml, num_tokens: int, layers: int, num_threads: int
    ) -> tuple[Graph, Run, Callable[[], NDArray[Any]]]:
        """The same by ggml's operations, as llama.cpp puts them together."""
        ...


def conv_of_text(
    graph: Graph, inputs: Tensor, tail: Tensor, taps: Tensor, sizes: tuple[int, int, int]
) -> Tensor:
    """The convolution over T tokens of C channels with K taps, sizes (T, C, K); the tail moves on."""
    num_tokens, num_channels, num_taps = sizes
    columns = graph.op("concat", tail, graph.op("transpose", inputs), 0)
    row = 4 * (num_taps - 1 + num_tokens)
    last = graph.op("view_2d", columns, num_taps - 1, num_channels, row, 4 * num_tokens)
    graph.expand(graph.op("cpy", last, tail))
    return graph.op("ssm_conv", columns, taps)
