"""``edgemoe run``: one prompt, one answer."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from edgemoe.cli.options import (
    ContextOption,
    JsonOption,
    MaxTokensOption,
    MemoryOption,
    MinPOption,
    RepetitionPenaltyOption,
    SeedOption,
    StopOption,
    StoreArgument,
    TemperatureOption,
    ThreadsOption,
    TopKOption,
    TopPOption,
    sampling,
)
from edgemoe.cli.output import print_json, say, say_budget
from edgemoe.errors import RequestError

if TYPE_CHECKING:
    from edgemoe.api import Generation


def run(
    store: StoreArgument,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", metavar="TEXT", help="Text to go on from; - or none: read stdin."),
    ] = None,
    memory: MemoryOption = None,
    context: ContextOption = None,
    num_threads: ThreadsOption = None,
    max_tokens: MaxTokensOption = 256,
    temperature: TemperatureOption = 0.0,
    top_k: TopKOption = 0,
    top_p: TopPOption = 1.0,
    min_p: MinPOption = 0.0,
    repetition_penalty: RepetitionPenaltyOption = 1.0,
    seed: SeedOption = None,
    stop: StopOption = None,
    watches: Annotated[
        bool, typer.Option("--watch", help="Show live which experts are resident, hit, missed, read ahead.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    r"""Continue a prompt within a memory budget.

    The text streams to stdout; one line on stderr says what it cost. Ctrl-C stops it.

    \b
    edgemoe run qwen.store --memory 6GiB --prompt "Once upon a time" --max-tokens 64
    edgemoe run qwen.store --memory 6GiB --temperature 0.7 --top-p 0.9 --seed 1 < question.txt
    edgemoe run qwen.store --memory 2GiB -p "1, 2, 3," --json
    edgemoe run qwen.store --memory 2GiB -p "Once upon a time" --watch
    """
    import edgemoe

    if watches and as_json:
        raise RequestError("--watch draws for people; leave out --watch or --json")
    text = _read_prompt(prompt)
    if not text:
        raise RequestError("the prompt is empty; give some text to go on from")
    options = sampling(max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed, stop)
    with edgemoe.load(store, memory, context=context, num_threads=num_threads) as model:
        if memory is None:
            say_budget(model)
        if as_json:
            print_json(model.generate(text, **options).to_json())
            return
        stream = model.stream(text, **options)
        if watches:
            from edgemoe.cli.watch import watch

            watch(model, stream, text)
            say(status_line(stream.generation))
            return
        try:
            for chunk in stream:
                print(chunk.text, end="", flush=True)
        finally:
            print(flush=True)
        say(status_line(stream.generation))
        if stream.generation.finish_reason == "length" and len(stream.generation.token_ids) < max_tokens:
            most = model.spec.max_context
            longer = f"; --context takes up to {most}" if model.memory.context < most else ""
            say(f"the context of {model.memory.context} tokens is full{longer}")


def status_line(generation: Generation) -> str:
    """What an answer cost, in one line."""
    from edgemoe.units import format_duration, format_size

    asked = generation.expert_hits + generation.expert_misses
    hit_share = f"{generation.expert_hits / asked:.0%}" if asked else "no"
    count = len(generation.token_ids)
    speed = f"{generation.decode_tokens_per_s:.1f} tokens/s, " if count > 1 else ""
    return (
        f"[{count} token{'' if count == 1 else 's'}, {speed}"
        f"first after {format_duration(generation.time_to_first_token_s)}, "
        f"{hit_share} cache hits, {format_size(generation.bytes_read)} read, "
        f"{format_size(generation.peak_rss_bytes)} of {format_size(generation.budget_bytes)} used]"
    )


def _read_prompt(prompt: str | None) -> str:
    if prompt is not None and prompt != "-":
        return prompt
    if sys.stdin.isatty():
        say("reading the prompt; end it with Ctrl-D")
    return sys.stdin.read()
