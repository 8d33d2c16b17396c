"""``edgemoe run``: one prompt, one answer."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemoe.cli.answering import AnswerArguments, TemplateOption, say_sampling, status_line, why_cut
from edgemoe.cli.given import as_utf8, template_options
from edgemoe.cli.groups import with_groups
from edgemoe.cli.loading import LoadArguments
from edgemoe.cli.options import JsonOption, ModelArgument
from edgemoe.cli.output import is_terminal, print_json, quoted, reading_prompt, say, shown_store
from edgemoe.errors import RequestError

if TYPE_CHECKING:
    from edgemoe.api import Model, Stream

DEFAULTS: dict[str, Any] = {"max_tokens": 256, "temperature": 0.0}


@dataclass(frozen=True)
class PromptArguments:
    """What is asked: a text to go on with, or a message to answer."""

    text: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT",
            help="Text to continue, or with --chat to answer; without it, or for -, stdin is read.",
            show_default=False,
        ),
    ] = None
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", "-p", metavar="TEXT", help="The prompt as an option, for one that begins with a dash."
        ),
    ] = None
    is_chat: Annotated[
        bool,
        typer.Option(
            "--chat", help="Answer the prompt, by the model's chat template, instead of continuing it."
        ),
    ] = False
    system: Annotated[
        str | None,
        typer.Option("--system", metavar="TEXT", help="System message before the prompt; needs --chat."),
    ] = None
    template: TemplateOption = None

    def __post_init__(self) -> None:
        if not self.is_chat and (self.system is not None or self.template):
            raise RequestError("--system and --template-option shape a chat; give --chat too")
        if self.text is not None and self.prompt is not None:
            raise RequestError("the prompt is given twice; give it once, with or without --prompt")

    def read(self) -> Asked:
        """The prompt of the command line, or of stdin.

        Raises:
            RequestError: it is empty, or a template option is none.
        """
        values = template_options(self.template)
        given = self.prompt if self.text is None else self.text
        prompt = _read_stdin() if given is None or given == "-" else as_utf8(given)
        if not prompt:
            raise RequestError("the prompt is empty; give some text to go on from")
        system = None if self.system is None else as_utf8(self.system)
        return Asked(prompt, self.is_chat, system, values)


@dataclass(frozen=True)
class Asked:
    """A prompt that was read, and what shapes it as a chat."""

    prompt: str
    is_chat: bool
    system: str | None
    template_options: dict[str, Any]

    def stream(self, model: Model, **options: Any) -> Stream:
        """The answer, with options of ``Model.stream``."""
        if not self.is_chat:
            return model.stream(self.prompt, **options)
        messages = [] if self.system is None else [{"role": "system", "content": self.system}]
        messages.append({"role": "user", "content": self.prompt})
        return model.stream_chat(messages, template_options=self.template_options, **options)


@with_groups
def run(
    store: ModelArgument,
    load: LoadArguments,
    answer: AnswerArguments,
    prompt: PromptArguments,
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
    asked = prompt.read()
    with load.load(store) as model:
        options = answer.options(model, DEFAULTS)
        say_sampling(model, options)
        if not asked.is_chat:
            _hint_at_chat(model, store)
        with reading_prompt() as progress, asked.stream(model, **options, progress=progress) as stream:
            if watches:
                from edgemoe.cli.watch import watch

                watch(model, stream, "" if asked.is_chat else asked.prompt)
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


def _hint_at_chat(model: Model, store: Path) -> None:
    """Where the model is made for chats: say how to ask it, as a text is about to be continued."""
    if model.tokenizer.chat_templates():
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


def _read_stdin() -> str:
    """All of stdin, without the newline that ends it."""
    if is_terminal(sys.stdin):
        say("reading the prompt; end it with Ctrl-D")
    # Some programs begin a text with a mark of its encoding.
    return sys.stdin.read().removeprefix("\ufeff").removesuffix("\n").removesuffix("\r")
