"""``edgemoe chat``: talking with a model in the terminal."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemoe.cli.answering import AnswerArguments, TemplateOption, say_sampling
from edgemoe.cli.conversation import Conversation, Turns
from edgemoe.cli.given import as_utf8, template_options
from edgemoe.cli.groups import with_groups
from edgemoe.cli.loading import LoadArguments
from edgemoe.cli.options import ModelArgument, unset
from edgemoe.cli.output import is_terminal, say, shown_store
from edgemoe.errors import RequestError

if TYPE_CHECKING:
    from edgemoe.api import Model

DEFAULTS: dict[str, Any] = {"max_tokens": 1024, "temperature": 0.7, "top_p": 0.9}


@with_groups
def chat(
    store: ModelArgument,
    load: LoadArguments,
    answer: AnswerArguments,
    system: Annotated[
        str | None,
        unset("--system", "TEXT", "System message; it always comes first."),
    ] = None,
    template: TemplateOption = None,
    drops_oldest: Annotated[
        bool,
        typer.Option("--drop-oldest", help="When the context is full, drop the oldest turns."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each answer, on a line of its own.")
    ] = False,
) -> None:
    r"""Talk with a model in the terminal.

    The model's own chat template is used. A line that ends with a backslash continues on the next one; a line
    of three quotes begins and ends a message of several lines.

    Commands: /help, /retry, /reset, /drop, /save FILE, /load FILE, /stats, /exit. To send a line that begins
    with a slash, type two. Ctrl-C stops an answer; Ctrl-D ends the conversation.

    \b
    edgemoe chat qwen.store --memory 6GiB
    edgemoe chat qwen.store --memory 6GiB --system "Answer in one sentence." --temperature 0
    edgemoe chat qwen.store --memory 6GiB --drop-oldest --template-option enable_thinking=false
    """
    values = template_options(template)
    if is_terminal(sys.stdin) and is_terminal(sys.stdout):
        import_module("readline")  # gives input() history and line editing
    with load.load(store) as model:
        options = answer.options(model, DEFAULTS)
        if not model.tokenizer.chat_templates():
            raise RequestError(
                f"{shown_store(store)} has no chat template; `edgemoe run` continues a plain prompt"
            )
        _say_header(model, str(shown_store(store)))
        say_sampling(model, options)
        turns = Turns(model, None if system is None else as_utf8(system), options, values, drops_oldest)
        Conversation(turns, prints_json=as_json).hold()


def _say_header(model: Model, name: str) -> None:
    """What one talks with, how long it may get, and what it may take."""
    from edgemoe.units import format_size

    memory = model.memory
    share = "all experts" if memory.is_resident else f"{memory.resident_share:.0%} of the experts"
    say(
        f"{name}: {model.spec.family}, context {memory.context} tokens,"
        f" budget {format_size(memory.budget_bytes)}, {share} in memory"
    )
