"""``edgemoe chat``: a conversation in the terminal."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemoe.cli.options import (
    ContextOption,
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
from edgemoe.cli.output import say, say_budget
from edgemoe.cli.run import status_line
from edgemoe.errors import RequestError

if TYPE_CHECKING:
    from edgemoe.api import Generation, Model

HELP = "/exit or Ctrl-D ends, /reset forgets the conversation, /stats shows costs, Ctrl-C stops an answer"


def chat(
    store: StoreArgument,
    memory: MemoryOption = None,
    system: Annotated[
        str | None, typer.Option("--system", metavar="TEXT", help="System message, always first.")
    ] = None,
    context: ContextOption = None,
    num_threads: ThreadsOption = None,
    max_tokens: MaxTokensOption = 512,
    temperature: TemperatureOption = 0.7,
    top_k: TopKOption = 0,
    top_p: TopPOption = 0.9,
    min_p: MinPOption = 0.0,
    repetition_penalty: RepetitionPenaltyOption = 1.0,
    seed: SeedOption = None,
    stop: StopOption = None,
) -> None:
    r"""Talk with a model.

    Its checkpoint's chat template shapes the conversation.
    /exit or Ctrl-D ends, /reset forgets the conversation, /stats shows what the last answer cost,
    Ctrl-C stops an answer.

    \b
    edgemoe chat qwen.store --memory 6GiB
    edgemoe chat qwen.store --memory 6GiB --system "Answer in one sentence." --temperature 0
    """
    import edgemoe

    options = sampling(max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed, stop)
    with edgemoe.load(store, memory, context=context, num_threads=num_threads) as model:
        if memory is None:
            say_budget(model)
        Conversation(model, system, options).hold()


@dataclass
class Conversation:
    """The messages so far and the loop that adds to them."""

    model: Model
    system: str | None
    options: dict[str, Any]
    messages: list[dict[str, str]] = field(default_factory=list)
    last: Generation | None = None

    def hold(self) -> None:
        """Read lines and answer them until the user ends it."""
        if sys.stdin.isatty():
            import_module("readline")  # gives input() history and line editing
        say(HELP)
        self._reset()
        while (line := self._read_line()) is not None:
            if line == "/exit":
                return
            if line == "/reset":
                self._reset()
            elif line == "/stats":
                say(status_line(self.last) if self.last else "nothing was answered yet")
            elif line.startswith("/"):
                say(f"no command {line.split()[0]}; {HELP}")
            elif line:
                self._answer(line)

    def _read_line(self) -> str | None:
        """The next line; None at its end (Ctrl-D). Ctrl-C drops what was typed."""
        while True:
            try:
                return input("> " if sys.stdin.isatty() else "").strip()
            except EOFError:
                say("")
                return None
            except KeyboardInterrupt:
                say("\n(Ctrl-D ends)")

    def _reset(self) -> None:
        self.messages = [{"role": "system", "content": self.system}] if self.system else []

    def _answer(self, question: str) -> None:
        asked = [*self.messages, {"role": "user", "content": question}]
        try:
            stream = self.model.stream_chat(asked, **self.options)
        except RequestError as error:
            say(f"{error}; /reset starts anew")
            return
        try:
            for chunk in stream:
                print(chunk.text, end="", flush=True)
            print(flush=True)
        except KeyboardInterrupt:
            stream.close()
            say(" (stopped)")
        self.last = stream.generation
        self.messages = [*asked, {"role": "assistant", "content": self.last.text}]
