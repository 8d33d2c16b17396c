"""A conversation in the terminal: its turns, and the loop that reads lines and shows answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemoe.cli.answering import status_line, why_cut
from edgemoe.cli.lines import read_message
from edgemoe.cli.output import is_terminal, print_json, reading_prompt, say
from edgemoe.cli.wrapping import WordWrap
from edgemoe.errors import ContextError, RequestError

if TYPE_CHECKING:
    from edgemoe.api import Generation, Model, Stream

HELP = """\
/help          this list
/retry         answer the last question again
/reset         forget the conversation
/drop          forget its oldest turn
/save FILE     write the conversation to a new JSON file
/load FILE     go on with one that was saved
/stats         what the last answer cost
/exit          end (Ctrl-D as well)
//text         a text that begins with a slash
text \\         continues on the next line
\"\"\"            begins and ends a text of several lines
Ctrl-C         stops an answer"""
# The share of the context that an answer needs; turns are dropped until that much is free.
ROOM_SHARE = 0.25
_ROLES = ("system", "user", "assistant", "tool")


@dataclass
class Turns:
    """The messages so far, and how they are answered."""

    model: Model
    system: str | None
    options: Mapping[str, Any]
    template: Mapping[str, Any]
    drops_oldest: bool = False
    messages: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Back to the system message, if there is one."""
        self.messages = [] if self.system is None else [{"role": "system", "content": self.system}]

    def drop(self) -> bool:
        """Forget the oldest question and what answers it; False if there is no more than the last one."""
        asked = [i for i, message in enumerate(self.messages) if message["role"] == "user"]
        if len(asked) < 2:
            return False
        del self.messages[asked[0] : asked[1]]
        return True

    def unanswer(self) -> str | None:
        """Take the last question back, with its answer; None if there is none."""
        asked = [i for i, message in enumerate(self.messages) if message["role"] == "user"]
        if not asked:
            return None
        question: str = self.messages[asked[-1]]["content"]
        del self.messages[asked[-1] :]
        return question

    def ask(self, question: str, **changes: Any) -> Stream:
        """The answer to come; the question is part of the conversation from now on.

        Raises:
            RequestError: it does not fit, or the template refuses it; the conversation is as before.
        """
        before = list(self.messages)
        self.messages.append({"role": "user", "content": question})
        try:
            num_dropped = self._make_room() if self.drops_oldest else 0
            stream = self.model.stream_chat(
                self.messages, template_options=self.template, **{**self.options, **changes}
            )
        except RequestError:
            self.messages = before
            raise
        if num_dropped:
            say(f"(forgot the {num_dropped} oldest turn{'s' if num_dropped > 1 else ''} to make room)")
        return stream

    def _make_room(self) -> int:
        """Drop the oldest turns until there is room for an answer; returns how many."""
        context = self.model.memory.context
        room = min(self.options["max_tokens"], int(context * ROOM_SHARE))
        num_dropped = 0
        while self._num_tokens(context) + room > context:
            if not self.drop():
                break
            num_dropped += 1
        return num_dropped

    def _num_tokens(self, most: int) -> int:
        """Tokens of the conversation; of one that has more than ``most``, some number above it."""
        tokenizer = self.model.tokenizer
        text = tokenizer.render_chat(self.messages, **self.template)
        return len(tokenizer.encode(text, adds_special=False, most=most))


class Conversation:
    """Reads lines, answers them on stdout, says all else on stderr."""

    def __init__(self, turns: Turns, *, prints_json: bool = False) -> None:
        self._turns = turns
        self._prints_json = prints_json
        self._last: Generation | None = None
        self._files: set[Path] = set()  # written or read here: they may be written again
        self._num_retries = 0
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": lambda _: say(HELP),
            "/retry": lambda _: self._retry(),
            "/reset": lambda _: self._reset(),
            "/drop": lambda _: say("forgot the oldest turn" if turns.drop() else "there is only one turn"),
            "/save": self._save,
            "/load": self._load,
            "/stats": lambda _: say(status_line(self._last) if self._last else "nothing was answered yet"),
        }

    def hold(self) -> None:
        """Until the user ends it."""
        say("/help lists what can be done; Ctrl-D ends")
        while (message := read_message()) is not None:
            if message.startswith("//"):
                self._answer(message[1:])
            elif message.startswith("/"):
                name, _, rest = message.partition(" ")
                if name in ("/exit", "/quit"):
                    return
                self._run(name, rest.strip())
            elif message:
                self._answer(message)

    def _run(self, name: str, rest: str) -> None:
        command = self._commands.get(name)
        if command is None:
            say(f"no command {name}; /help lists them, // begins a text with a slash")
            return
        try:
            command(rest)
        except (RequestError, OSError) as error:
            say(str(error))

    def _reset(self) -> None:
        self._turns.reset()
        say("the conversation is forgotten")

    def _retry(self) -> None:
        before = list(self._turns.messages)
        question = self._turns.unanswer()
        if question is None:
            say("nothing was asked yet")
            return
        self._num_retries += 1
        seed = self._turns.options.get("seed")
        if not self._turns.options.get("temperature"):
            say("(the most likely token is taken each time: the answer will be the same)")
        if not self._answer(question, **({} if seed is None else {"seed": seed + self._num_retries})):
            self._turns.messages = before  # the answer that there was is better than none

    def _save(self, name: str) -> None:
        path = _named(name)
        if path.exists() and path not in self._files:
            raise RequestError(f"{path} exists; choose another name")
        text = json.dumps({"messages": self._turns.messages}, ensure_ascii=False, indent=1)
        path.write_text(text + "\n", encoding="utf-8")
        self._files.add(path)
        say(f"wrote {path}")

    def _load(self, name: str) -> None:
        path = _named(name)
        self._turns.messages = read_messages(path)
        self._files.add(path)
        say(f"{len(self._turns.messages)} messages from {path}")

    def _answer(self, question: str, **changes: Any) -> bool:
        """Whether there is an answer; without one the conversation is as if it had not been asked."""
        turns = self._turns
        before = list(turns.messages)
        with reading_prompt() as progress:
            try:
                stream = turns.ask(question, progress=progress, **changes)
            except RequestError as error:
                say(f"{error}. {self._way_out()}" if isinstance(error, ContextError) else str(error))
                return False
            with stream:
                try:
                    self._show(stream)
                except KeyboardInterrupt:
                    say("\n(stopped)")
                except RequestError as error:
                    turns.messages = before
                    say(str(error))
                    return False
        self._last = stream.generation
        if not self._last.token_ids:  # stopped while the prompt was read
            turns.messages = before
            return False
        turns.messages.append({"role": "assistant", "content": self._last.text})
        if self._prints_json:
            print_json(self._last.to_json())
        cut = why_cut(turns.model, self._last, turns.options["max_tokens"])
        if cut:
            is_full = len(self._last.token_ids) < turns.options["max_tokens"]
            say(f"({cut}. {self._way_out()})" if is_full else f"({cut})")
        return True

    def _show(self, stream: Stream) -> None:
        if self._prints_json:
            for _ in stream:
                pass
            return
        wrap = WordWrap(_columns())
        try:
            for chunk in stream:
                print(wrap.push(chunk.text), end="", flush=True)
        finally:
            print(wrap.flush(), flush=True)

    def _way_out(self) -> str:
        ways = ["/drop forgets the oldest turn", "/reset all of them"]
        if not self._turns.drops_oldest:
            ways.append("--drop-oldest does the first by itself")
        return ", ".join(ways)


def read_messages(path: Path) -> list[dict[str, Any]]:
    """The messages of a saved conversation.

    Raises:
        RequestError: it cannot be read, or holds no conversation.
    """
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        messages = saved["messages"] if isinstance(saved, dict) else saved
        for message in messages:
            if message["role"] not in _ROLES or not isinstance(message["content"], str):
                raise ValueError("a message without role or content")
            message["content"].encode()  # JSON can hold halves of characters, which no text can
        return [{"role": m["role"], "content": m["content"]} for m in messages]
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RequestError(f"{path} is no saved conversation: {error}") from None


def _named(name: str) -> Path:
    if not name:
        raise RequestError("give the name of a file after the command")
    if "\0" in name:
        raise RequestError(f"{name!r:.60} is no name of a file")
    try:
        return Path(name).expanduser()
    except RuntimeError:  # of a user that there is not
        return Path(name)


def _columns() -> int | None:
    """Width of the terminal that answers go to; None where they go elsewhere and are not to be wrapped."""
    if not is_terminal(sys.stdout):
        return None
    import shutil

    return shutil.get_terminal_size().columns
