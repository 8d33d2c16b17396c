"""``edgemoe run``: one prompt, one answer."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemoe.cli.given import as_utf8, template_options
from edgemoe.cli.groups import with_groups
from edgemoe.cli.options import AnswerArguments, JsonOption, LoadArguments, StoreArgument, TemplateOption
from edgemoe.cli.output import print_json, quoted, reading_prompt, say, say_sampling, shown_store
from edgemoe.errors import RequestError

if TYPE_CHECKING:
    from edgemoe.api import Generation, Model, Stream

DEFAULTS: dict[str, Any] = {"max_tokens": 256, "temperature": 0.0}


@with_groups
def run(
    store: StoreArgument,
    load: LoadArguments,
    answer: AnswerArguments,
    text: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT",
            help="Text to continue, or with --chat to answer; without it, or for -, stdin is read.",
            show_default=False,
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", "-p", metavar="TEXT", help="The prompt as an option, for one that begins with a dash."
        ),
    ] = None,
    is_chat: Annotated[
        bool,
        typer.Option(
            "--chat", help="Answer the prompt, by the model's chat template, instead of continuing it."
        ),
    ] = False,
    system: Annotated[
        str | None,
        typer.Option("--system", metavar="TEXT", help="System message before the prompt; needs --chat."),
    ] = None,
    template: TemplateOption = None,
    watches: Annotated[
        bool,
        typer.Option("--watch", help="Show live which experts are resident, hit, missed and read ahead."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    r"""Continue a prompt, or answer it, within a memory budget.

    The answer goes to stdout as it is written; stderr shows the sampling settings and what the answer cost.
    Settings that you leave out are those that the model's authors recommend (generation_config.json). Ctrl-C
    stops the answer. A GGUF file is run as it is.

    \b
    edgemoe run qwen.store "Once upon a time" --memory 6GiB --max-tokens 64
    edgemoe run qwen.store --chat "Why is the sky blue?" --memory 6GiB
    edgemoe run qwen3-q4_k_m.gguf "Once upon a time" --memory 6GiB
    edgemoe run qwen.store --chat --template-option enable_thinking=false "Why?"
    edgemoe run qwen.store --memory 6GiB --temperature 0.7 --seed 1 < question.txt
    edgemoe run qwen.store --memory 2GiB "1, 2, 3," --json
    edgemoe run qwen.store --memory 2GiB "Once upon a time" --watch
    edgemoe run s3://bucket/qwen.store --memory 8GiB --tier 20GiB "Once upon a time"
    edgemoe run qwen.store --memory 6GiB --draft none "Copy this text twice: ..."
    """
    if watches and as_json:
        raise RequestError("--watch draws for people; leave out --watch or --json")
    if not is_chat and (system is not None or template):
        raise RequestError("--system and --template-option shape a chat; give --chat too")
    values = template_options(template)
    asked = _read_prompt(text, prompt)
    if not asked:
        raise RequestError("the prompt is empty; give some text to go on from")
    with load.load(store) as model:
        options = answer.options(model, DEFAULTS)
        say_sampling(model, options)
        if is_chat:
            begin = partial(model.stream_chat, _messages(system, asked), template_options=values)
        else:
            begin = partial(model.stream, asked)
            _hint_at_chat(model, store)
        with reading_prompt() as progress, begin(**options, progress=progress) as stream:
            if watches:
                from edgemoe.cli.watch import watch

                watch(model, stream, "" if is_chat else asked)
            elif as_json:
                _finish(stream)
            else:
                _print(stream)
        if as_json:
            print_json(stream.generation.to_json())
            return
        say(status_line(stream.generation))
        cut = why_cut(model, stream.generation, options["max_tokens"])
        if cut:
            say(cut)


def _messages(system: str | None, asked: str) -> list[dict[str, str]]:
    """The prompt as a chat."""
    messages = [] if system is None else [{"role": "system", "content": as_utf8(system)}]
    return [*messages, {"role": "user", "content": asked}]


def _hint_at_chat(model: Model, store: Path) -> None:
    """To who continues a text with a model that is made for chats."""
    if model.tokenizer.template_names():
        command = quoted("edgemoe", "run", shown_store(store), "--chat")
        say(f"hint: this model has a chat template; to ask with it: {command}")


def _print(stream: Stream) -> None:
    try:
        for chunk in stream:
            print(chunk.text, end="", flush=True)
    finally:
        print(flush=True)


def _finish(stream: Stream) -> None:
    try:
        for _ in stream:
            pass
    except KeyboardInterrupt:
        stream.close()  # what there is of the answer is reported


def status_line(generation: Generation) -> str:
    """What an answer cost, in one line."""
    from edgemoe.units import format_duration, format_size

    drafted = ""
    if generation.num_drafted:
        drafted = f"{generation.num_accepted} of {generation.num_drafted} drafted tokens accepted, "
    asked = generation.expert_hits + generation.expert_misses
    hit_share = f"{generation.expert_hits / asked:.0%}" if asked else "no"
    far, near = generation.far_bytes, generation.tier_bytes
    origin = (
        f" ({format_size(far)} over the network, {format_size(near)} from the tier)" if far or near else ""
    )
    count = len(generation.token_ids)
    speed = f"{generation.decode_tokens_per_s:.1f} tokens/s, " if count > 1 else ""
    return (
        f"[{count} token{'' if count == 1 else 's'}, {speed}"
        f"first after {format_duration(generation.time_to_first_token_s)}, "
        f"{drafted}{hit_share} cache hits, {format_size(generation.bytes_read)} read{origin}, "
        f"{format_size(generation.peak_rss_bytes)} of {format_size(generation.budget_bytes)} used]"
    )


def why_cut(model: Model, generation: Generation, max_tokens: int) -> str | None:
    """What cut an answer before its end, and what takes more; None if nothing did."""
    if generation.finish_reason != "length":
        return None
    if len(generation.token_ids) >= max_tokens:
        count = "1 token" if max_tokens == 1 else f"{max_tokens} tokens"
        return f"the answer was cut after {count}; --max-tokens takes more"
    most = model.spec.max_context
    longer = f"; --context takes up to {most}" if model.memory.context < most else ""
    return f"the context of {model.memory.context} tokens is full{longer}"


def _read_prompt(text: str | None, prompt: str | None) -> str:
    """The prompt of the command line, or stdin without the newline that ends it.

    Raises:
        RequestError: it is given twice.
    """
    if text is not None and prompt is not None:
        raise RequestError("the prompt is given twice; give it once, with or without --prompt")
    given = prompt if text is None else text
    if given is not None and given != "-":
        return as_utf8(given)
    if sys.stdin.isatty():
        say("reading the prompt; end it with Ctrl-D")
    # Some programs begin a text with a mark of its encoding.
    return sys.stdin.read().removeprefix("\ufeff").removesuffix("\n").removesuffix("\r")
