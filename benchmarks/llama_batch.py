"""llama.cpp writing as many sequences in one batch, through its C functions."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np


class LlamaBatch:
    """llama.cpp with a model in memory and room for so many sequences, which it continues in one batch."""

    def __init__(self, path: Path, num_sequences: int, num_tokens: int) -> None:
        """``num_tokens``: the most that each sequence holds."""
        import llama_cpp

        self._api: Any = llama_cpp
        self._open = ExitStack()
        api = self._api
        api.llama_backend_init()
        self._silent = api.llama_log_callback(lambda level, text, data: None)  # kept: llama.cpp calls it
        api.llama_log_set(self._silent, ctypes.c_void_p(0))
        model = api.llama_model_load_from_file(str(path).encode(), api.llama_model_default_params())
        self._open.callback(api.llama_model_free, model)
        params = api.llama_context_default_params()
        params.n_ctx, params.n_seq_max = num_sequences * num_tokens, num_sequences
        self._context = api.llama_init_from_model(model, params)
        self._open.callback(api.llama_free, self._context)
        self._batch = api.llama_batch_init(num_sequences * num_tokens, 0, 1)
        self._open.callback(api.llama_batch_free, self._batch)
        self._vocab_size = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))

    def __enter__(self) -> LlamaBatch:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def read(self, sequence: int, prompt: Sequence[int]) -> int:
        """Read a sequence's prompt; the likeliest token after it."""
        last = len(prompt) - 1
        self._decode([(token, i, sequence, i == last) for i, token in enumerate(prompt)])
        return self._likeliest(last)

    def step(self, tokens: Sequence[int], positions: Sequence[int]) -> list[int]:
        """One more token of every sequence; the likeliest tokens after them."""
        rows = zip(tokens, positions, strict=True)
        self._decode([(token, position, s, True) for s, (token, position) in enumerate(rows)])
        return [self._likeliest(s) for s in range(len(tokens))]

    def _decode(self, rows: Sequence[tuple[int, int, int, bool]]) -> None:
        """Rows of (token, position, sequence, whether its logits are wanted)."""
        batch = self._batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, is_wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
            batch.seq_id[i][0], batch.logits[i] = sequence, is_wanted
        if self._api.llama_decode(self._context, batch):
            raise SystemExit("llama.cpp could not decode")

    def _likeliest(self, row: int) -> int:
        logits = self._api.llama_get_logits_ith(self._context, row)
        return int(np.ctypeslib.as_array(logits, (self._vocab_size,)).argmax())


def llama_cpp_rate(path: Path, prompts: Sequence[Sequence[int]], num_tokens: int) -> float:
    """Tokens per second of llama.cpp, greedy, all prompts in one batch, weights in memory."""
    longest = max(len(prompt) for prompt in prompts)
    with LlamaBatch(path, len(prompts), longest + num_tokens + 8) as llama:
        tokens = [llama.read(s, prompt) for s, prompt in enumerate(prompts)]
        began_s = time.perf_counter()
        for step in range(num_tokens):
            tokens = llama.step(tokens, [len(prompt) + step for prompt in prompts])
        return len(prompts) * num_tokens / (time.perf_counter() - began_s)
