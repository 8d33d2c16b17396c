"""Attention to a cache of halves: grouped heads, windows, sinks, latent vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ggml import Ggml
from ggml_graph import Graph
from numpy.typing import NDArray

from edgemoe import native
from mixer_kinds.kind import CONTEXT, Run, normal


@dataclass(frozen=True)
class AttentionKind:
    """See Kind. Latent attention has one key head whose first ``value_dim`` entries are the values."""

    title: str
    model: str
    layers: int
    heads: int
    kv_heads: int
    dim: int
    value_dim: int = 0
    window: int = 0
    has_sinks: bool = False

    @property
    def _num_before(self) -> int:
        """Tokens before that are still seen: of a window, as many as a ring keeps."""
        return self.window - 1 if self.window else CONTEXT

    def bytes_read(self, num_tokens: int) -> int:
        """See Kind."""
        entries = self.dim if self.value_dim else 2 * self.dim
        return 2 * self.kv_heads * (self._num_before + num_tokens) * entries

    def _inputs(self, num_tokens: int) -> tuple[NDArray[np.float32], list[NDArray[np.float16]]]:
        """Queries (T, H, C), then keys and values (G, S, C)."""
        shape = (self.kv_heads, self._num_before + num_tokens, self.dim)
        caches = [normal(*shape, seed=seed).astype(np.float16) for seed in (1, 2)]
        return normal(num_tokens, self.heads, self.dim), caches[:1] if self.value_dim else caches

    @property
    def _sinks(self) -> NDArray[np.float32] | None:
        return normal(self.heads) if self.has_sinks else None

    def ours(self, num_tokens: int, layers: int) -> tuple[Run, Callable[[], NDArray[Any]]]:
        """See Kind."""
        q, caches = self._inputs(num_tokens)
        copies = [[cache.copy() for cache in caches] for _ in range(layers)]
        options = {"sinks": self._sinks, "window": self.window, "value_dim": self.value_dim}
        start, scale = self._num_before, self.dim**-0.5
        found: list[NDArray[Any]] = []

        def run() -> None:
            outputs = [native.attention(q, c[0], c[-1], start, scale, **options) for c in copies]
            found[:] = outputs[:1]

        return run, lambda: found[0]

    def rival(
        self, ggml: Ggml, num_tokens: int, layers: int, num_threads: int
    ) -> tuple[Graph, Run, Callable[[], NDArray[Any]]]:
        """See Kind."""
        q, caches = self._inputs(num_tokens)
        num_keys, width = self._num_before + num_tokens, self.value_dim or self.dim
        place = self._num_before + np.arange(num_tokens)[:, None] - np.arange(num_keys)
        is_hidden = (place < 0) | ((place >= self.window) & (self.window > 0))
        graph = Graph(ggml, layers * (sum(c.nbytes for c in caches) + 4 * q.nbytes) + 4 * is_hidden.size)
        mask = graph.tensor(np.where(is_hidden, -np.inf, 0).astype(np.float16))
        sinks = None if self._sinks is None else graph.tensor(self._sinks)
        queries = graph.op("permute", graph.tensor(q), 0, 2, 1, 3)
        results = []
        for _ in range(layers):
            # All heads of a token beside each other, as llama.cpp keeps them.
            by_token = [np.ascontiguousarray(cache.transpose(1, 0, 2)) for cache in caches]
            keys, *others = (graph.op("permute", graph.tensor(c), 0, 2, 1, 3) for c in by_token)
            row = 2 * self.dim
            values = (
                others[0] if others else graph.op("view_3d", keys, width, num_keys, 1, row, row * num_keys, 0)
            )
            result = graph.op("flash_attn_ext", queries, keys, values, mask, self.dim**-0.5, 0.0, 0.0)
            if sinks is not None:
                graph.add_sinks(result, sinks)
            graph.expand(result)
            results.append(result)
        shape = (num_tokens, self.heads, width)
        return graph, graph.planned(num_threads), lambda: graph.array(results[0], shape)
