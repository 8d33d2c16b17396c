"""One engine of the race in a process of its own; prints one JSON line.

    python benchmarks/race_entrant.py llama.cpp MODEL.gguf IDS.json [--repack] [--logits FILE]
    python benchmarks/race_entrant.py edgemoe MODEL.store IDS.json --memory 2GiB [--logits FILE]

IDS.json has the token ids of a prompt, of those that follow, and of another prompt. The first prompt is read
in one go, then the rest one by one, as when generating, until ``--seconds`` have passed; then the other
prompt, afresh. Time to the first token counts from the start of loading.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

PROMPT_TOKENS_AT_ONCE = 512


class LlamaCpp:
    """llama.cpp through its C functions, so that nothing of Python is timed but one call a token."""

    def __init__(self, path: Path, num_threads: int, context: int, is_repacked: bool) -> None:
        import llama_cpp

        self._api = llama_cpp
        llama_cpp.llama_backend_init()
        silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
        self._silent = silent  # the library keeps the pointer
        model_params = llama_cpp.llama_model_default_params()
        model_params.use_extra_bufts = is_repacked
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), model_params)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = context
        params.n_ubatch = min(context, PROMPT_TOKENS_AT_ONCE)
        params.n_threads = params.n_threads_batch = num_threads
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            raise SystemExit("llama.cpp could not load the model")
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        """Read a prompt from the beginning; logits (V,) of its last position."""
        self._api.llama_memory_clear(self._api.llama_get_memory(self._context), True)
        return self._read(ids)

    def _read(self, ids: Sequence[int]) -> np.ndarray:
        tokens = (self._api.llama_token * len(ids))(*ids)
        if self._api.llama_decode(self._context, self._api.llama_batch_get_one(tokens, len(ids))):
            raise SystemExit("llama.cpp could not decode")
        return np.ctypeslib.as_array(self._api.llama_get_logits_ith(self._context, -1), (self._vocab_size,))

    def step(self, token_id: int) -> np.ndarray:
        """Read one more token; logits (V,)."""
        return self._read([token_id])

    def all_logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits (T, V) of every position."""
        return np.stack([self.step(token_id).copy() for token_id in ids])


class EdgeMoE:
    """Our engine within a budget."""

    def __init__(self, path: Path, num_threads: int, context: int, memory: str | None) -> None:
        import edgemoe

        self._model = edgemoe.load(path, memory, context=context, num_threads=num_threads)
        self._session = self._model.engine.session

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        """Read a prompt from the beginning; logits (V,) of its last position."""
        return self._session.prefill(ids)

    def step(self, token_id: int) -> np.ndarray:
        """Read one more token; logits (V,)."""
        return self._session.step(token_id)

    def all_logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits (T, V) of every position."""
        return self._model.logits(ids)

    def counts(self) -> dict[str, float]:
        """How the cache did."""
        stats = self._model.stats()
        uses = stats.expert_hits + stats.expert_misses
        return {"hit_share": stats.expert_hits / max(1, uses), "waited_s": stats.waited_s}


def bytes_read() -> int:
    """Bytes this process has had read from storage, page faults included."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("read_bytes")).split()[1])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("engine", choices=("llama.cpp", "edgemoe"))
    parser.add_argument("model", type=Path)
    parser.add_argument("ids", type=Path)
    parser.add_argument("--memory", help="budget of edgemoe")
    parser.add_argument("--repack", action="store_true", help="let llama.cpp rearrange weights in memory")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60, help="stop decoding after so long")
    parser.add_argument(
        "--logits", type=Path, help="write the logits of every position of the prompt, no race"
    )
    args = parser.parse_args()
    ids = json.loads(args.ids.read_text())
    prompt, rest, other = ids["prompt"], ids["rest"], ids["other"]
    context = len(prompt) + len(rest) + 8
    began_s = time.perf_counter()
    entrant: LlamaCpp | EdgeMoE
    if args.engine == "edgemoe":
        entrant = EdgeMoE(args.model, args.threads, context, args.memory)
    else:
        entrant = LlamaCpp(args.model, args.threads, context, args.repack)
    if args.logits:
        np.save(args.logits, entrant.all_logits(prompt))
        return
    entrant.prefill(prompt)
    first_s = time.perf_counter()
    read_before = bytes_read()
    steps: list[float] = []
    for token_id in rest:
        step_s = time.perf_counter()
        entrant.step(token_id)
        steps.append(time.perf_counter() - step_s)
        if time.perf_counter() - first_s > args.seconds:
            break
    decode_bytes_read = bytes_read() - read_before
    counts = entrant.counts() if isinstance(entrant, EdgeMoE) else {}
    other_s = time.perf_counter()
    entrant.prefill(other)
    record = {
        "first_token_s": first_s - began_s,
        "prefill_s": time.perf_counter() - other_s,
        "prefill_tokens": len(other),
        "step_s": steps,
        "decode_bytes_read": decode_bytes_read,
    }
    print(json.dumps({**record, **counts}))


if __name__ == "__main__":
    main()
