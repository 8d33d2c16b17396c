"""The live view of ``edgemoe run --watch``: the answer, its speed, and what every expert is doing.

Letters: S layers with experts, E experts.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from edgemoe.cli.output import is_terminal

if TYPE_CHECKING:
    from edgemoe.api import Chunk, Model, Stream
    from edgemoe.experts import ExpertCache, LayerEvent

# States of an expert, the later ones outranking the earlier when several share a column of the map.
ABSENT, RESIDENT, HIT, PRELOADED, MISSED = range(5)
LOOKS = {
    ABSENT: ("·", "bright_black", "on storage"),
    RESIDENT: ("▪", "blue", "resident"),
    HIT: ("■", "green", "used, was resident"),
    PRELOADED: ("▲", "cyan", "used, read ahead"),
    MISSED: ("×", "red", "used, waited for"),
}
REFRESH_PER_S = 12
MAP_LINES = 32  # layers beyond this many are folded, several into one line


class ExpertMap:
    """What happened to each expert at the newest token; see LayerObserver."""

    def __init__(self, cache: ExpertCache) -> None:
        self._cache = cache
        catalog = cache.catalog
        self._width = max(catalog.num_experts(p) for p in range(catalog.num_layers))
        self._used: list[dict[int, int]] = [{} for _ in range(catalog.num_layers)]

    def layer_runs(self, event: LayerEvent) -> None:
        """Remember how the experts of one layer were found."""
        states = dict.fromkeys(event.hits, HIT) | dict.fromkeys(event.misses, MISSED)
        states |= dict.fromkeys(event.preloaded.intersection(event.hits), PRELOADED)
        self._used[event.position] = states

    def states(self) -> np.ndarray:
        """State (S, E) of every expert now."""
        catalog = self._cache.catalog
        states = np.full((catalog.num_layers, self._width), ABSENT)
        for position, used in enumerate(self._used):
            first = catalog.span(position).start
            for expert in catalog.experts(position):
                is_resident = expert in self._cache
                states[position, expert - first] = used.get(expert, RESIDENT if is_resident else ABSENT)
        return states

    def draw(self, columns: int) -> Text:
        """The map in at most ``columns`` columns: a line per layer, a mark per expert, folded if need be."""
        states = fold(fold(self.states(), MAP_LINES, axis=0), max(8, columns - 6), axis=1)
        text = Text(no_wrap=True)
        lines = len(states)
        for line, row in enumerate(states):
            layer = self._cache.catalog.layers[line * self._cache.catalog.num_layers // lines]
            text.append(f"{layer:4d}  ", style="bright_black")
            for state in row.tolist():
                mark, style, _ = LOOKS[state]
                text.append(mark, style=style)
            text.append("\n")
        return text


def fold(states: np.ndarray, size: int, axis: int) -> np.ndarray:
    """States with at most ``size`` entries along an axis; neighbours share one, the highest state shows."""
    length = states.shape[axis]
    if length <= size:
        return states
    step = -(-length // size)
    folded: np.ndarray = np.maximum.reduceat(states, np.arange(0, length, step), axis=axis)
    return folded


def watch(model: Model, stream: Stream, prompt: str) -> None:
    """Show an answer being written; returns when it is complete.

    In a terminal the view is redrawn on stderr and the whole text ends up on stdout. Elsewhere the text goes
    to stdout as it comes, and the last view to stderr.
    """
    view = stream.observer = ExpertMap(model.engine.experts.cache)
    console = Console(stderr=True, highlight=False)
    began_s = model.stats().waited_s
    if console.is_terminal and is_terminal(sys.stdout):
        _redraw(model, stream, prompt, view, console, began_s)
        return
    chunk = None
    print(prompt, end="", flush=True)
    for chunk in stream:
        print(chunk.text, end="", flush=True)
    print(flush=True)
    if chunk is not None:
        console.print(_panel(view, chunk, model, began_s, console))


def _redraw(
    model: Model, stream: Stream, prompt: str, view: ExpertMap, console: Console, began_s: float
) -> None:
    story, last = Text(prompt, style="bold"), None
    with Live(
        console=console, refresh_per_second=REFRESH_PER_S, vertical_overflow="crop", transient=True
    ) as live:
        for chunk in stream:
            story.append(chunk.text, style="not bold")
            lines = story.wrap(console, console.width)
            room = max(3, console.height - MAP_LINES - 8)
            shown = Text("\n").join(lines[-room:])
            live.update(Group(shown, _panel(view, chunk, model, began_s, console)))
            last = chunk
    print(story.plain, flush=True)
    if last is not None:
        console.print(_panel(view, last, model, began_s, console))


def _panel(view: ExpertMap, chunk: Chunk, model: Model, waited_before_s: float, console: Console) -> Panel:
    return Panel(
        Group(_numbers(chunk, model, waited_before_s), view.draw(console.width - 4), _legend()),
        title="experts: one line per layer, one mark per expert",
        title_align="left",
    )


def _numbers(chunk: Chunk, model: Model, waited_before_s: float) -> Text:
    from edgemoe.units import format_size

    stats = chunk.stats
    waited_s = stats.waited_s - waited_before_s
    share = min(1.0, waited_s / chunk.elapsed_s) if chunk.elapsed_s else 0.0
    reading = "on" if model.engine.experts.is_reading_ahead else "resting"
    return Text(
        f"{chunk.decode_tokens_per_s:.1f} tokens/s · {1 - share:.0%} computing, {share:.0%} waiting · "
        f"{stats.hit_share:.0%} hits · {format_size(stats.bytes_read)} read, "
        f"{format_size(stats.wasted_bytes)} wasted · reading ahead {reading} · "
        f"{format_size(stats.resident_bytes)} of {format_size(stats.budget_bytes)}"
    )


def _legend() -> Text:
    text = Text()
    for mark, style, meaning in LOOKS.values():
        text.append(f"{mark} ", style=style)
        text.append(f"{meaning}   ", style="bright_black")
    return text
