"""Delta nets: one decay a head (Qwen3-Next, Qwen3.5), or one for each entry of a key (Kimi)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ggml import Ggml
from ggml_graph import Graph, Tensor
from numpy.typing import NDArray

from edgemoe import native
from mixer_kinds.kind import Run, conv_of_text, normal, packed
from mixer_kinds.recurrent import EPS, WIDTH, Layer, rms, silu


@dataclass(frozen=True)
class _Rows:
    """What the projections made of T tokens, as ggml gets it: its order of heads is its own."""

    channels: NDArray[np.float32]  # (T, C)
    forgotten: NDArray[np.float32]  # (T, what a head forgets by times heads)
    betas: NDArray[np.float32]  # (T, H)
    taps: NDArray[np.float32]  # (K, C)
    dt_bias: NDArray[np.float32]
    decay: NDArray[np.float32]  # (H,)
    key_heads: int
    heads: int
    dim: int


def _delta_rule(graph: Graph, rows: _Rows, layers: int) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs [Dv, H, T] and states [Dk, Dv, H] of so many layers."""
    tokens, channels = rows.channels.shape
    heads, keys, dim = rows.heads, rows.key_heads, rows.dim
    of_head = rows.forgotten.shape[1] // heads
    inputs, taps = graph.tensor(rows.channels), graph.tensor(np.ascontiguousarray(rows.taps.T))
    forgotten, betas = graph.tensor(rows.forgotten), graph.tensor(rows.betas)
    dt_bias, decay = graph.tensor(rows.dt_bias), graph.tensor(rows.decay[:, None])
    outputs, states = [], []
    for _ in range(layers):
        state = graph.tensor(np.zeros((heads, dim, dim), np.float32))
        tail = graph.tensor(np.zeros((channels, len(rows.taps) - 1), np.float32))
        sizes = (tokens, channels, len(rows.taps))
        mixed = graph.op("silu", conv_of_text(graph, inputs, tail, taps, sizes))

        def part(count: int, first: int, mixed: Tensor = mixed) -> Tensor:
            row = 4 * channels
            return graph.op("view_3d", mixed, dim, count, tokens, 4 * dim, row, 4 * first * dim)

        q, k = (graph.op("l2_norm", part(keys, first), EPS) for first in (0, keys))
        step = graph.op("softplus", graph.op("add", forgotten, dt_bias))
        by_head = graph.op("reshape_3d", step, of_head, heads, tokens)
        logs = graph.op("mul", by_head, decay)
        beta = graph.op("reshape_3d", graph.op("sigmoid", betas), 1, heads, tokens)
        both = graph.op("gated_delta_net", q, k, part(heads, 2 * keys), logs, beta, state, 1)
        after = graph.op("view_1d", both, heads * dim * dim, 4 * tokens * heads * dim)
        graph.expand(graph.op("cpy", after, state))
        outputs.append(both)
        states.append(state)
    return outputs, states


def _num_bytes(rows: _Rows, layers: int) -> int:
    tokens, channels = rows.channels.shape
    num_floats = 12 * channels * (tokens + 4) + 3 * rows.heads * rows.dim**2
    return 4 * (layers + 1) * num_floats


@dataclass(frozen=True)
class GatedDeltaKind:
    """See Kind."""

    title: str
    model: str
    layers: int
    key_heads: int
    value_heads: int
    dim: int
    num_taps: int

    @property
    def _inner(self) -> int:
        return self.value_heads * self.dim

    @property
    def _channels(self) -> int:
        return 2 * self.key_heads * self.dim + self._inner

    def bytes_read(self, num_tokens: int) -> int:
        """See Kind: state, tail, taps and rows."""
        rows = self._channels * (2 * self.num_taps - 1 + num_tokens) + 2 * num_tokens * self.value_heads
        return 4 * (self._inner * self.dim + rows)

    @property
    def _weights(self) -> dict[str, NDArray[np.float32]]:
        heads, channels = self.value_heads, self._channels
        return {
            "qkv": normal(channels, WIDTH) / 6,
            "z": normal(self._inner, WIDTH) / 6,
            "beta": normal(heads, WIDTH) / 6,
            "alpha": normal(heads, WIDTH, seed=1) / 6,
            "decay": -np.exp(normal(heads)),
            "dt_bias": normal(heads, seed=1),
            "taps": normal(self.num_taps, channels) / 2,
            "out": normal(WIDTH, self._inner) / np.float32(self._inner**0.5),
        }

    def _layer(self, num_tokens: int) -> Layer:
        w, ones = self._weights, np.ones
        compiled = native.mixers.GatedDeltaNet(
            ones(WIDTH, np.float32), EPS, packed(w["qkv"]), packed(w["z"]), packed(w["beta"]),
            packed(w["alpha"]), w["decay"], w["dt_bias"], w["taps"], ones(self.dim, np.float32),
            packed(w["out"]), num_key_heads=self.key_heads, num_value_heads=self.value_heads,
            key_dim=self.dim, value_dim=self.dim,
        )  # fmt: skip
        shapes = {
            "state": (self.value_heads, self.dim, self.dim),
            "tail": (self.num_taps - 1, self._channels),
        }
        return Layer(compiled, shapes, num_tokens)

    def ours(self, num_tokens: int, layers: int) -> tuple[Run, Callable[[], NDArray[Any]]]:
        """See Kind."""
        return self._layer(num_tokens).runs(layers)

    def rival(
        self, ggml: Ggml, num_tokens: int, layers: int, num_threads: int
    ) -> tuple[Graph, Run, Callable[[], NDArray[Any]]]:
        """See Kind. Value heads of one key head stand apart there, by the number of key heads."""
        layer, w = self._layer(num_tokens), self._weights
        heads, keys, dim = self.value_heads, self.key_heads, self.dim
        order = np.arange(heads).reshape(keys, -1).T.ravel()
        of_keys = np.arange(2 * keys * dim)
        of_values = 2 * keys * dim + np.arange(self._inner).reshape(heads, dim)[order].ravel()
        channels = np.concatenate([of_keys, of_values])
        parts = np.split(layer.record, np.cumsum([self._channels, heads]) * num_tokens)
        qkv, betas, alphas = (part.reshape(num_tokens, -1) for part in parts)
        rows = _Rows(
            qkv[:, channels], alphas[:, order], betas[:, order], w["taps"][:, channels], w["dt_bias"][order],
            w["decay"][order], keys, heads, dim,
        )  # fmt: skip
        graph = Graph(ggml, _num_bytes(rows, layers))
        outputs, states = _delta_rule(graph, rows, layers)
        run = graph.planned(num_threads)
        run()
        back = np.argsort(order)
        o = graph.array(outputs[0], (num_tokens, heads, dim))[:, back]
        gated = rms(o) * silu(rms(layer.x) @ w["z"].T).reshape(o.shape)
        after = graph.array(states[0], (heads, dim, dim))[back].transpose(0, 2, 1)
        found = np.concatenate([(gated.reshape(num_tokens, -1) @ w["out"].T).ravel(), after.ravel()])
        return graph, run, lambda: found


@dataclass(frozen=True)
class KimiDeltaKind:
    """See Kind."""

    title: str
    model: str
    layers: int
    heads: int
    dim: int
    num_taps: int

    @property
    def _inner(self) -> int:
        return self.heads * self.dim

    def bytes_read(self, num_tokens: int) -> int:
        """See Kind: state, tail, taps and rows."""
        rows = 3 * self._inner * (2 * self.num_taps - 1 + num_tokens)
        return 4 * (self._inner * self.dim + rows + num_tokens * (self._inner + self.heads))

    @property
    def _weights(self) -> dict[str, NDArray[np.float32]]:
        inner = self._inner
        return {
            **{name: normal(inner, WIDTH, seed=i) / 6 for i, name in enumerate("qkv")},
            "forget": normal(inner, WIDTH, seed=3) / 6,
            "gate": normal(inner, WIDTH, seed=4) / 6,
            "beta": normal(self.heads, WIDTH) / 6,
            "decay": -np.exp(normal(self.heads)),
            "dt_bias": normal(inner),
            "taps": normal(self.num_taps, 3 * inner) / 2,
            "out": normal(WIDTH, inner) / np.float32(inner**0.5),
        }

    def _layer(self, num_tokens: int) -> Layer:
        w, ones = self._weights, np.ones
        compiled = native.mixers.KimiDeltaNet(
            ones(WIDTH, np.float32), EPS, packed(w["q"]), packed(w["k"]), packed(w["v"]),
            (None, packed(w["forget"])), (None, packed(w["gate"])), packed(w["beta"]), w["decay"],
            w["dt_bias"], w["taps"], ones(self.dim, np.float32), packed(w["out"]), num_heads=self.heads,
            key_dim=self.dim, value_dim=self.dim,
        )  # fmt: skip
        shapes = {"state": (self.heads, self.dim, self.dim), "tail": (self.num_taps - 1, 3 * self._inner)}
        return Layer(compiled, shapes, num_tokens)

    def ours(self, num_tokens: int, layers: int) -> tuple[Run, Callable[[], NDArray[Any]]]:
        """See Kind."""
        return self._layer(num_tokens).runs(layers)

    def rival(
        self, ggml: Ggml, num_tokens: int, layers: int, num_threads: int
    ) -> tuple[Graph, Run, Callable[[], NDArray[Any]]]:
        """See Kind."""
        layer, w, heads, dim = self._layer(num_tokens), self._weights, self.heads, self.dim
        parts = np.split(layer.record, np.cumsum([3 * self._inner, self._inner]) * num_tokens)
        channels, forgotten, betas = (part.reshape(num_tokens, -1) for part in parts)
        rows = _Rows(channels, forgotten, betas, w["taps"], w["dt_bias"], w["decay"], heads, heads, dim)
        graph = Graph(ggml, _num_bytes(rows, layers))
        outputs, states = _delta_rule(graph, rows, layers)
        run = graph.planned(num_threads)
        run()
        o = graph.array(outputs[0], (num_tokens, heads, dim)).copy()
        gates = (rms(layer.x) @ w["gate"].T).reshape(o.shape)
        gated = rms(o) / (1 + np.exp(-gates))
        after = graph.array(states[0], (heads, dim, dim)).transpose(0, 2, 1)
        found = np.concatenate([(gated.reshape(num_tokens, -1) @ w["out"].T).ravel(), after.ravel()])
        return graph, run, lambda: found
