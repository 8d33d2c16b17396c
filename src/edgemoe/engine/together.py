"""Many answers in one call: as many at once as is fastest, each in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from edgemoe.engine.generation import Stream


def write_all(streams: Sequence[Stream], num_at_once: int, on_end: Callable[[], None] = lambda: None) -> None:
    """Let all of them end; ``on_end`` is called after each. Ctrl-C ends those that have not."""
    try:
        if num_at_once == 1 or len(streams) == 1:
            for stream in streams:
                _write(stream)
                on_end()
            return
        with ThreadPoolExecutor(min(num_at_once, len(streams))) as executor:
            try:
                for future in as_completed([executor.submit(_write, stream) for stream in streams]):
                    future.result()
                    on_end()
            except BaseException:
                for stream in streams:
                    stream.cancel()
                raise
    except KeyboardInterrupt:
        for stream in streams:
            stream.close()


def _write(stream: Stream) -> None:
    with stream:
        for _ in stream:
            pass
