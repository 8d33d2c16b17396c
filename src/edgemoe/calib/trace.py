"""A trace: which experts every token of a text chose in every layer, and what the routers saw.

Letters: T tokens, S layers with experts, K chosen, D width, N tokens whose states are kept.

A trace is a folder: trace.json, experts.npy (T, S, K), weights.npy (T, S, K), states.npy (N, S, D).
In a model with an encoder the first layers' rows are those of the prompt's tokens, the others' those of the
answer's: a row has one token of each.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemoe import native
from edgemoe.calib.disk_array import new_disk_array
from edgemoe.engine.loading import Engine
from edgemoe.errors import RequestError, TraceError
from edgemoe.experts import Catalog, LayerEvent
from edgemoe.json_object import read_json_object
from edgemoe.progress import Progress
from edgemoe.store.durable import LOCK_FILE, failing_clearly, lock_folder

VERSION = 1
TRACE_FILE = "trace.json"
# States of wide and deep models would fill disks; this many bytes of them fit any correction.
MAX_STATE_BYTES = 1 << 30


@dataclass(frozen=True)
class Trace:
    """What a model did. ``starts`` are the tokens at which a new, unrelated window of text begins."""

    experts: NDArray[np.int16]  # (T, S, K), by the layer's own numbers
    weights: NDArray[np.float16]  # (T, S, K)
    states: NDArray[np.float16]  # (N, S, D), what each layer's router saw
    starts: Sequence[int]
    catalog: Catalog
    sources: Mapping[str, int]  # tokens by text

    @property
    def num_tokens(self) -> int:
        """Tokens traced (T)."""
        return len(self.experts)

    @property
    def top_k(self) -> int:
        """Experts chosen per token and layer (K)."""
        return int(self.experts.shape[2])

    def of_steps(self) -> Trace:
        """The layers that run at every step alone, numbered anew; the same where there are no others."""
        first = self.catalog.first_step
        if not first:
            return self
        sizes = zip(self.catalog.keys, self.catalog.num_bytes.tolist(), strict=True)
        kept = {key: size for key, size in sizes if self.catalog.position[key[0]] >= first}
        arrays = (self.experts[:, first:], self.weights[:, first:], self.states[:, first:])
        return Trace(*arrays, self.starts, Catalog(kept), self.sources)

    @property
    def num_experts(self) -> list[int]:
        """Experts of each layer."""
        return [self.catalog.num_experts(p) for p in range(self.catalog.num_layers)]


class _Recorder:
    """Writes what the layers of one window report; see LayerObserver."""

    def __init__(self, experts: NDArray[Any], weights: NDArray[Any], states: NDArray[Any]) -> None:
        self._experts, self._weights, self._states = experts, weights, states
        self._tokens = [0] * experts.shape[1]  # where each layer's next chunk begins

    def layer_runs(self, event: LayerEvent) -> None:
        """Copy one layer of one chunk."""
        first = self._tokens[event.position]
        rows = slice(first, first + len(event.x))
        self._tokens[event.position] = rows.stop
        self._experts[rows, event.position] = event.expert_ids
        self._weights[rows, event.position] = event.weights
        kept = self._states[rows, event.position]
        kept[:] = event.x[: len(kept)]


def record_trace(
    engine: Engine,
    texts: Mapping[str, Sequence[int]],
    folder: Path,
    progress: Progress | None = None,
) -> Trace:
    """Feed texts, each a list of tokens, in windows of the context, and write what happens.

    Raises:
        RequestError: the folder exists, no text has two tokens, the layers choose unlike numbers, or the
            disk is full.
        ConversionError: another process traces to the folder, or it cannot be written.
    """
    refuse_existing(folder)
    folder = Path(os.path.realpath(folder))  # a link stays, and so does the disk that it chose
    windows = [w for ids in texts.values() for w in _windows(ids, engine.session.num_slots)]
    if not windows:
        raise RequestError("there is no text to trace; give one of at least two tokens")
    with failing_clearly(_partial_of(folder)), _partial(folder) as partial:
        _record(engine, windows, partial, progress)
        _write_facts(engine, windows, texts, partial)
        partial.rename(folder)
        (folder / LOCK_FILE).unlink()
    return read_trace(folder)


def refuse_existing(folder: Path) -> None:
    """Raises RequestError if no new trace can have this name."""
    if folder.exists():
        raise RequestError(f"{folder} exists; choose another folder for the trace")
    partial = _partial_of(folder)
    if partial.exists() and not (partial.is_dir() and {p.name for p in partial.iterdir()} <= _FILES):
        raise RequestError(f"{partial} was not made by a trace; move it away, or choose another folder")


def _partial_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.partial")


@contextlib.contextmanager
def _partial(folder: Path) -> Iterator[Path]:
    """A folder beside it for this process alone, which goes if the trace does not become whole."""
    partial = _partial_of(folder)
    lock = lock_folder(partial)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _record(
    engine: Engine, windows: Sequence[Sequence[int]], folder: Path, progress: Progress | None
) -> None:
    spec = engine.spec
    chosen = {spec.moe(layer).router.top_k for layer in spec.moe_layers}
    if len(chosen) > 1:
        raise RequestError(f"layers choose {sorted(chosen)} experts; tracing needs the same number in all")
    total, num_layers = sum(map(engine.session.num_rows, windows)), len(spec.moe_layers)
    num_kept = min(total, MAX_STATE_BYTES // (2 * num_layers * spec.width))
    shapes = {
        "experts": ((total, num_layers, chosen.pop()), np.int16),
        "weights": ((total, num_layers, spec.moe(spec.moe_layers[0]).router.top_k), np.float16),
        "states": ((num_kept, num_layers, spec.width), np.float16),
    }
    arrays = {
        name: new_disk_array(folder / f"{name}.npy", dtype, shape) for name, (shape, dtype) in shapes.items()
    }
    recorder = _Recorder(**arrays)
    done = 0
    for window in windows:
        for _ in engine.session.states(window, recorder):
            pass
        done += engine.session.num_rows(window)
        if progress is not None:
            progress(done, total)
    for array in arrays.values():
        array.flush()


def _windows(token_ids: Sequence[int], length: int) -> list[Sequence[int]]:
    pieces = [token_ids[start : start + length] for start in range(0, len(token_ids), length)]
    return [piece for piece in pieces if len(piece) > 1]


def _write_facts(
    engine: Engine, windows: Sequence[Sequence[int]], texts: Mapping[str, Sequence[int]], folder: Path
) -> None:
    catalog = engine.experts.cache.catalog
    facts = {
        "version": VERSION,
        "starts": np.cumsum([0, *map(engine.session.num_rows, windows)])[:-1].tolist(),
        "sources": {name: len(ids) for name, ids in texts.items()},
        "expert_num_bytes": {
            str(layer): catalog.num_bytes[catalog.span(p)].tolist() for p, layer in enumerate(catalog.layers)
        },
        "num_encoder_layers": engine.spec.num_encoder_layers,
    }
    (folder / TRACE_FILE).write_text(json.dumps(facts), encoding="utf-8")


def read_trace(folder: Path) -> Trace:
    """Open a trace; its arrays stay on storage until they are used.

    Raises:
        TraceError: the folder is not a trace, or is damaged.
    """
    try:
        facts = read_json_object(folder / TRACE_FILE)
        if facts["version"] != VERSION:
            raise TraceError(f"{folder}: trace version {facts['version']!r}, not {VERSION}; trace again")
        sizes = {
            (int(layer), expert): _count(num_bytes, 1)
            for layer, row in facts["expert_num_bytes"].items()
            for expert, num_bytes in enumerate(row)
        }
        arrays = {name: _open_array(folder / f"{name}.npy", dtype) for name, dtype in _ARRAYS.items()}
        # Traces of decoders made before there were encoders do not say so.
        catalog = Catalog(sizes, _count(facts.get("num_encoder_layers", 0)))
        starts = [_count(start) for start in facts["starts"]]
        sources = {str(name): _count(count) for name, count in facts["sources"].items()}
        trace = Trace(**arrays, starts=starts, catalog=catalog, sources=sources)
        _check(trace)
    except FileNotFoundError as error:
        raise TraceError(f"{error.filename}: missing; {folder} is no trace made by `edgemoe trace`") from None
    except TraceError:
        raise
    except (OSError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise TraceError(f"{folder}: damaged trace ({error}); run `edgemoe trace` again") from error
    return trace


_ARRAYS = {"experts": np.int16, "weights": np.float16, "states": np.float16}
_FILES = {TRACE_FILE, LOCK_FILE, *(f"{name}.npy" for name in _ARRAYS)}
_LOST = (
    "edgemoe: a file of a trace has become shorter while it was read; leave it alone, or run `edgemoe trace`"
    " again\n"
)
# Far beyond any trace, far below where sums of them overflow.
_MAX_COUNT = 1 << 50


def _count(value: Any, at_least: int = 0) -> int:
    if type(value) is not int or not at_least <= value < _MAX_COUNT:
        raise ValueError(f"{value!r} is not a number that can be")
    return value


def _open_array(path: Path, dtype: type[Any]) -> NDArray[Any]:
    """A three-dimensional array that stays on storage; its header may say anything."""
    if not path.stat().st_size:
        raise ValueError(f"{path.name} is empty")
    native.end_with_line_on_lost_pages(_LOST)
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # the header is read by a parser of Python, with its own kinds of errors
        raise ValueError(f"{path.name} is no array: {error}") from error
    if not isinstance(array, np.memmap) or array.dtype != dtype or array.ndim != 3:
        raise ValueError(f"{path.name} is not an array of {np.dtype(dtype)} with three axes")
    return array


def _check(trace: Trace) -> None:
    """Later code indexes by these numbers."""
    num_tokens, num_layers, _ = trace.experts.shape
    largest = np.array(trace.num_experts)[None, :, None]
    is_whole = (
        0 not in trace.experts.shape
        and trace.catalog.num_step_layers > 0
        and trace.weights.shape == trace.experts.shape
        and num_layers == trace.catalog.num_layers == trace.states.shape[1]
        and len(trace.states) <= num_tokens
        and all(0 <= start < num_tokens for start in trace.starts)
    )
    if not is_whole or trace.experts.min() < 0 or not bool((trace.experts < largest).all()):
        raise ValueError("shapes or numbers of experts do not fit")
