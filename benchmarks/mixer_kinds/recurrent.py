"""Mamba-2 and the short convolution; and what our recurrent mixers have in common here.

Rows are made by a layer of little width, so that what both engines get are real rows, and what both make of
them can be compared to the end. What is timed is everything between the projections.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ggml import Ggml
from ggml_graph import Graph, Tensor
from numpy.typing import NDArray

from edgemoe import native
from mixer_kinds.kind import Run, conv_of_text, normal, packed

WIDTH = 32  # of the layer that makes the rows
EPS = 1e-6
Shapes = Mapping[str, tuple[int, ...]]


def rms(x: NDArray[Any]) -> NDArray[Any]:
    """Rows over their root mean squares."""
    return np.asarray(x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS))


def silu(x: NDArray[Any]) -> NDArray[Any]:
    """The activation."""
    return np.asarray(x / (1 + np.exp(-x)))


class Layer:
    """One of our mixers with rows: what it records of them, and what it makes of them."""

    def __init__(self, compiled: Any, shapes: Shapes, num_tokens: int, width: int = WIDTH) -> None:
        """``shapes``: of tail and, where there is one, state."""
        self._compiled, self._shapes, self._num_tokens = compiled, shapes, num_tokens
        self.x = normal(num_tokens, width)
        out = self.x.copy()
        self.record = np.empty(num_tokens * compiled.record_width, np.float32)
        state, tail = self.zeros()
        compiled.run(out, [(0, num_tokens, state, tail)], True, [self.record])
        self.made = out - self.x

    def zeros(self) -> tuple[NDArray[np.float32] | None, NDArray[np.float32]]:
        """State and tail of a new text."""
        state = self._shapes.get("state")
        tail = np.zeros(self._shapes["tail"], np.float32)
        return None if state is None else np.zeros(state, np.float32), tail

    def runs(self, layers: int) -> tuple[Run, Callable[[], NDArray[Any]]]:
        """See Kind: the rows move so many states on; the results are what the layer makes of the rows, and
        the state after them.
        """
        states, num_tokens = [self.zeros() for _ in range(layers)], self._num_tokens
        state, tail = self.zeros()
        self._compiled.replay(self.record, num_tokens, num_tokens, state, tail)
        after = tail if state is None else state

        def run() -> None:
            for own, its_tail in states:
                self._compiled.replay(self.record, num_tokens, num_tokens, own, its_tail)

        return run, lambda: np.concatenate([self.made.ravel(), after.ravel()])


@dataclass(frozen=True)
class ShortConvKind:
    """See Kind."""

    title: str
    model: str
    layers: int
    width: int
    num_taps: int

    def bytes_read(self, num_tokens: int) -> int:
        """See Kind: the tail, the taps and the rows."""
        return 4 * self.width * (2 * self.num_taps - 1 + num_tokens)

    @property
    def _taps(self) -> NDArray[np.float32]:
        return normal(self.num_taps, self.width) / 2

    def _layer(self, num_tokens: int) -> Layer:
        """Both gates and the values are the normed rows themselves."""
        same = np.eye(self.width, dtype=np.float32)
        norm = np.ones(self.width, np.float32)
        compiled = native.mixers.ShortConv(
            norm, EPS, packed(np.tile(same, (3, 1))), None, self._taps, None, packed(same), None
        )
        return Layer(compiled, {"tail": (self.num_taps - 1, self.width)}, num_tokens, self.width)

    def ours(self, num_tokens: int, layers: int) -> tuple[Run, Callable[[], NDArray[Any]]]:
        """See Kind."""
        return self._layer(num_tokens).runs(layers)

    def rival(
        self, ggml: Ggml, num_tokens: int, layers: int, num_threads: int
    ) -> tuple[Graph, Run, Callable[[], NDArray[Any]]]:
        """See Kind."""
        layer, sizes = self._layer(num_tokens), (num_tokens, self.width, self.num_taps)
        graph = Graph(ggml, (layers + 1) * 16 * self.width * (num_tokens + self.num_taps))
        inputs = graph.tensor(layer.record.reshape(num_tokens, self.width))
        taps = graph.tensor(np.ascontiguousarray(self._taps.T))
        zeros = np.zeros((self.width, self.num_taps - 1), np.float32)
        tails, results = [], []
        for _ in range(layers):
            tails.append(graph.tensor(zeros))
            results.append(conv_of_text(graph, inputs, tails[-1], taps, sizes))
            graph.expand(results[-1])
        run = graph.planned(num_threads)
        run()
        mixed = graph.array(results[0], (num_tokens, self.width)) * rms(layer.x)
        found = np.concatenate([mixed.ravel(), graph.array(tails[0], zeros.shape).T.ravel()])
        return graph, run, lambda: found


@dataclass(frozen=True)
class Mamba2Kind:
    """See Kind."""

    title: str
    model: str
    layers: int
    num_heads: int
    head_dim: int
    num_groups: int
    state_dim: int
    num_taps: int

    @property
    def _inner(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def _channels(self) -> int:
        return self._inner + 2 * self.num_groups * self.state_dim

    def bytes_read(self, num_tokens: int) -> int:
        """See Kind: state, tail, taps and rows."""
        rows = self._channels * (2 * self.num_taps - 1 + num_tokens) + num_tokens * self.num_heads
        return 4 * (self._inner * self.state_dim + rows)

    @property
    def _weights(self) -> dict[str, NDArray[np.float32]]:
        heads, inner, channels = self.num_heads, self._inner, self._channels
        return {
            "z": normal(inner, WIDTH) / 6,
            "mixed": normal(channels, WIDTH) / 6,
            "steps": normal(heads, WIDTH) / 6,
            "decay": -np.exp(normal(heads)),
            "dt_bias": normal(heads, seed=1),
            "skip": normal(heads, seed=2),
            "taps": normal(self.num_taps, channels) / 2,
            "conv_bias": normal(channels),
            "out": normal(WIDTH, inner) / np.float32(inner**0.5),
        }

    def _layer(self, num_tokens: int) -> Layer:
        w = self._weights
        compiled = native.mixers.Mamba2(
            np.ones(WIDTH, np.float32), EPS, packed(w["z"]), packed(w["mixed"]), packed(w["steps"]), None,
            w["decay"], w["dt_bias"], w["skip"], w["taps"], w["conv_bias"], np.ones(self._inner, np.float32),
            packed(w["out"]), None, num_heads=self.num_heads, head_dim=self.head_dim,
            num_groups=self.num_groups, state_dim=self.state_dim, step_low=0.0, step_high=np.inf,
        )  # fmt: skip
        shapes = {
            "state": (self.num_heads, self.state_dim, self.head_dim),
            "tail": (self.num_taps - 1, self._channels),
        }
        return Layer(compiled, shapes, num_tokens)

    def ours(self, num_tokens: int, layers: int) -> tuple[Run, Callable[[], NDArray[Any]]]:
        """See Kind."""
        return self._layer(num_tokens).runs(layers)

    def rival(
        self, ggml: Ggml, num_tokens: int, layers: int, num_threads: int
    ) -> tuple[Graph, Run, Callable[[], NDArray[Any]]]:
        """See Kind."""
        layer, w = self._layer(num_tokens), self._weights
        tokens, heads, dim, states = num_tokens, self.num_heads, self.head_dim, self.state_dim
        num_floats = 16 * self._channels * (tokens + self.num_taps) + 3 * self._inner * states
        graph = Graph(ggml, 4 * (layers + 1) * num_floats)
        rows = tokens * self._channels
        inputs = graph.tensor(layer.record[:rows].reshape(tokens, self._channels))
        steps = graph.tensor(layer.record[rows:].reshape(1, tokens, heads))
        taps = graph.tensor(np.ascontiguousarray(w["taps"].T))
        bias, dt_bias = graph.tensor(w["conv_bias"]), graph.tensor(w["dt_bias"])
        decay, skip = graph.tensor(w["decay"][:, None]), graph.tensor(w["skip"][:, None])
        first = graph.tensor(np.zeros(1, np.int32))
        sizes = (tokens, self._channels, self.num_taps)

        def scan(state: Tensor, tail: Tensor) -> Tensor:
            mixed = conv_of_text(graph, inputs, tail, taps, sizes)
            mixed = graph.op("silu", graph.op("add", mixed, bias))
            row = 4 * self._channels

            def part(size: int, count: int, offset: int) -> Tensor:
                return graph.op(
                    "view_4d", mixed, size, count, tokens, 1, 4 * size, row, row * tokens, 4 * offset
                )

            x = part(dim, heads, 0)
            written = part(states, self.num_groups, self._inner)
            read = part(states, self.num_groups, self._inner + self.num_groups * states)
            step = graph.op("add", steps, dt_bias)
            both = graph.op("ssm_scan", state, x, step, decay, written, read, first, 1)
            after = graph.op("view_1d", both, self._inner * states, 4 * tokens * self._inner)
            graph.expand(graph.op("cpy", after, state))
            row = 4 * self._inner
            y = graph.op("view_4d", both, dim, heads, tokens, 1, 4 * dim, row, row * tokens, 0)
            return graph.op("add", y, graph.op("mul", x, skip))

        texts, results = [], []
        for _ in range(layers):
            state = graph.tensor(np.zeros((1, heads, dim, states), np.float32))
            tail = graph.tensor(np.zeros((self._channels, self.num_taps - 1), np.float32))
            texts.append(state)
            results.append(scan(state, tail))
            graph.expand(results[-1])
        run = graph.planned(num_threads)
        run()
        y = graph.array(results[0], (tokens, self._inner)).copy()
        gated = y * silu(rms(layer.x) @ w["z"].T)
        normed = rms(gated.reshape(tokens, self.num_groups, -1)).reshape(tokens, -1)
        after = graph.array(texts[0], (heads, dim, states)).transpose(0, 2, 1)
        found = np.concatenate([(normed @ w["out"].T).ravel(), after.ravel()])
        return graph, run, lambda: found
