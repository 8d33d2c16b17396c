"""``edgemoe demo``: the embedded model tells a story with room for a third of its experts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemoe.cli.answering import status_line
from edgemoe.cli.options import JsonOption, unset
from edgemoe.cli.output import is_terminal, print_json, say

if TYPE_CHECKING:
    from edgemoe.api import Chunk, Model

DEMO_PROMPT = "Once upon a time, there was a little girl named Lily."
# A fixed seed tells the same story at every budget; how an instruction set rounds may turn it.
DEMO_SAMPLING: dict[str, Any] = {"temperature": 0.7, "top_p": 0.9, "seed": 1}


def demo(
    prompt: Annotated[
        str, typer.Option("--prompt", "-p", metavar="TEXT", help="How the story begins.")
    ] = DEMO_PROMPT,
    memory: Annotated[
        str | None,
        unset(
            "--memory",
            "SIZE",
            "Cap on the memory of the whole process.  [default: room for a third of the experts]",
        ),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", metavar="N", min=1, help="Most tokens of the answer.")
    ] = 160,
    as_json: JsonOption = False,
) -> None:
    r"""See it work: the small model inside this package tells a story.

    Nothing is downloaded. The memory budget has room for a third of the experts; the others are read when
    they are needed, and the last line shows that live.

    \b
    edgemoe demo
    edgemoe demo --prompt "The old fox" --max-tokens 80
    """
    import edgemoe
    from edgemoe.workflows.demo import demo_store, load_demo

    options = {**DEMO_SAMPLING, "max_tokens": max_tokens}
    with demo_store() as store, load_demo(store) if memory is None else edgemoe.load(store, memory) as model:
        if as_json:
            print_json(model.generate(prompt, **options).to_json())
        elif is_terminal(sys.stdout):
            _show_live(model, prompt, options)
        else:
            _show_plain(model, prompt, options)


def _show_plain(model: Model, prompt: str, options: dict[str, Any]) -> None:
    print(prompt, end="", flush=True)
    stream = model.stream(prompt, **options)
    for chunk in stream:
        print(chunk.text, end="", flush=True)
    print(flush=True)
    say(status_line(stream.generation))


def _show_live(model: Model, prompt: str, options: dict[str, Any]) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    story = Text(prompt, style="bold")
    stream = model.stream(prompt, **options)
    with Live(story, refresh_per_second=12, vertical_overflow="visible") as live:
        for chunk in stream:
            story.append(chunk.text, style="not bold")
            live.update(Group(story, Text(), Text(live_line(chunk), style="cyan")))
        live.update(story)
    say(status_line(stream.generation))


def live_line(chunk: Chunk) -> str:
    """Speed, hits, bytes read and memory of the budget, as they stand now."""
    from edgemoe.units import format_size

    stats = chunk.stats
    return (
        f"{chunk.decode_tokens_per_s:6.1f} tokens/s · {stats.hit_share:4.0%} cache hits · "
        f"{format_size(stats.bytes_read)} read · "
        f"{format_size(stats.resident_bytes)} of {format_size(stats.budget_bytes)} used"
    )
