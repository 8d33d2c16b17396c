"""What llama.cpp makes of a GGUF file."""

from __future__ import annotations

from pathlib import Path

import llama_cpp
import numpy as np


def llama_cpp_logits(path: Path, tokens: np.ndarray) -> np.ndarray:
    """Logits (T, V) of tokens (T,), read in one batch."""
    # One thread: two would spin for each other where the cores are shared.
    threads = {"n_threads": 1, "n_threads_batch": 1}
    model = llama_cpp.Llama(str(path), n_ctx=len(tokens) + 32, **threads, logits_all=True, verbose=False)
    try:
        model.eval(tokens.tolist())
        return np.array(model.scores[: len(tokens)])
    finally:
        model.close()
