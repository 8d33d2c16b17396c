"""Options that several commands share, so that they are spelt and explained once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemoe.errors import RequestError

if TYPE_CHECKING:
    from edgemoe.api import Model
    from edgemoe.executors import Executor

StoreArgument = Annotated[
    Path, typer.Argument(metavar="STORE", help="Folder made by convert, a name of your library, or a URL.")
]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="Cap on the whole process, such as 2GiB or 800MiB. "
        "[default: what the machine or its cgroup has free, minus a margin]",
        show_default=False,
    ),
]
ContextOption = Annotated[
    int | None,
    typer.Option(
        "--context",
        metavar="TOKENS",
        min=1,
        help="Longest prompt plus answer; its key/value cache is counted in the budget.",
        show_default=False,
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        min=1,
        help="Threads that compute. [default: one per core]",
        show_default=False,
    ),
]
TierOption = Annotated[
    str | None,
    typer.Option(
        "--tier",
        metavar="SIZE",
        help="Of a store at a URL: room on this disk for experts that were read; 0: none.",
        show_default=False,
    ),
]
DraftOption = Annotated[
    str,
    typer.Option(
        "--draft",
        metavar="auto|none|text|mtp|STORE",
        help="Guess the next tokens and compute them together, as far as that pays: text guesses what"
        " followed where the text's end stood before, mtp what the store's layer for further tokens predicts,"
        " a small store what it would write. Changes no token.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")]
DenseBitsOption = Annotated[
    str | None,
    typer.Option(
        "--dense-bits",
        metavar="2|3|4|6|8|bf16|f16|f32",
        help="Width of all other matrices.  [default: 8]",
        show_default=False,
    ),
]
NoMtpOption = Annotated[
    bool,
    typer.Option("--no-mtp", help="Leave out the layer that predicts further tokens, where there is one."),
]
MaxTextTokensOption = Annotated[
    int, typer.Option("--max-tokens", metavar="N", min=2, help="Tokens in all, shared by the texts.")
]
WindowOption = Annotated[
    int | None,
    typer.Option(
        "--window",
        metavar="TOKENS",
        min=2,
        help="Tokens the model sees at once.  [default: 512, or the model's context]",
        show_default=False,
    ),
]
MaxTokensOption = Annotated[
    int, typer.Option("--max-tokens", metavar="N", min=1, help="Longest answer, in tokens.")
]
_MODELS_OWN = "[default: the model's own, else {}]"


def _own(value: object) -> str:
    return _MODELS_OWN.format(value)


@dataclass(frozen=True)
class LoadArguments:
    """How a store is loaded: the options that every command shares which runs one."""

    memory: MemoryOption = None
    context: ContextOption = None
    num_threads: ThreadsOption = None
    tier: TierOption = None
    draft: DraftOption = "auto"

    @contextmanager
    def load(self, store: Path) -> Iterator[Model]:
        """The loaded model; tells on stderr of a budget that nobody asked for, or that is not free."""
        import edgemoe
        from edgemoe.cli.output import say_budget, waiting

        with waiting(f"loading {store.name or store}"):
            model = edgemoe.load(
                *(store, self.memory),
                context=self.context,
                num_threads=self.num_threads,
                tier=self.tier,
                draft=self.draft,
            )
        with model:
            say_budget(model, self.memory)
            yield model


@dataclass(frozen=True)
class AnswerArguments:
    """How answers are drawn and ended. None: nothing was said."""

    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            metavar="N",
            min=1,
            help="Longest answer, in tokens. [default: 256; of chat 1024]",
            show_default=False,
        ),
    ] = None
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature",
            metavar="T",
            min=0.0,
            help=f"0 always takes the likeliest token. {_own('0; of chat 0.7')}",
            show_default=False,
        ),
    ] = None
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k",
            metavar="K",
            min=0,
            help=f"Draw among the K likeliest; 0: all. {_own(0)}",
            show_default=False,
        ),
    ] = None
    top_p: Annotated[
        float | None,
        typer.Option(
            "--top-p",
            metavar="P",
            min=0.0,
            max=1.0,
            help="Draw among the likeliest tokens that hold this share of the probability."
            f" {_own('1; of chat 0.9')}",
            show_default=False,
        ),
    ] = None
    min_p: Annotated[
        float | None,
        typer.Option(
            "--min-p",
            metavar="P",
            min=0.0,
            max=1.0,
            help=f"Leave out tokens less likely than this share of the likeliest. {_own(0)}",
            show_default=False,
        ),
    ] = None
    repetition_penalty: Annotated[
        float | None,
        typer.Option(
            "--repetition-penalty",
            metavar="X",
            min=0.0,
            help=f"Above 1 makes tokens that are already there less likely. {_own(1)}",
            show_default=False,
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", min=0, help="Same seed, same answer.", show_default=False),
    ] = None
    stop: Annotated[
        list[str] | None,
        typer.Option(
            "--stop", metavar="TEXT", help="End before this text; may be given again.", show_default=False
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.stop and "" in self.stop:
            raise RequestError("--stop '': every answer has that; give some text")

    def options(self, model: Model, fallback: Mapping[str, Any]) -> dict[str, Any]:
        """Keyword arguments of ``Model.stream`` and its siblings: what was said, else the model's own values,
        else those of the command.
        """
        from edgemoe.engine.defaults import choose_sampling

        said = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        if "stop" in said:
            said["stop"] = tuple(as_utf8(text) for text in said["stop"])
        return {**fallback, **choose_sampling(said, model.sampling_defaults, fallback)}


TemplateOption = Annotated[
    list[str] | None,
    typer.Option(
        "--template-option",
        metavar="NAME=VALUE",
        help="Value for the chat template, such as enable_thinking=false; may be given again.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class WorkArguments:
    """Where calibration runs."""

    executor: Annotated[
        str,
        typer.Option(
            "--executor",
            metavar="NAME",
            help="Where the work runs: local, local:4 (processes), ray, ray://HOST:10001, slurm or"
            " slurm:PARTITION. The numbers are the same. All workers must see all folders.",
        ),
    ] = "local"
    num_workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=1,
            help="Workers at once, each of which takes --memory.  [default: 1; of ray as many as have"
            " room, of slurm 4]",
            show_default=False,
        ),
    ] = None
    num_cores: Annotated[
        int | None,
        typer.Option(
            "--worker-cores",
            metavar="N",
            min=1,
            help="Cores of a worker of ray or slurm.  [default: those of the smallest node; of slurm 8]",
            show_default=False,
        ),
    ] = None

    def find(self, memory: str | None) -> Executor:
        """The executor whose workers take so much memory each."""
        from edgemoe.executors import ExecutorOptions, find_executor
        from edgemoe.units import parse_size

        memory_bytes = None if memory is None else parse_size(memory)
        return find_executor(ExecutorOptions(self.executor, self.num_workers, self.num_cores, memory_bytes))


def template_options(pairs: Sequence[str] | None) -> dict[str, Any]:
    """Options of a chat template: values are JSON where they can be, else text.

    Raises:
        RequestError: a pair has no name or no value.
    """
    found: dict[str, Any] = {}
    for pair in pairs or ():
        name, sign, value = pair.partition("=")
        if not sign or not name.isidentifier():
            raise RequestError(f"--template-option {pair!r}: give NAME=VALUE, such as enable_thinking=false")
        try:
            found[name] = json.loads(value)
        except (ValueError, RecursionError):
            found[name] = as_utf8(value)
    return found


def as_utf8(text: str) -> str:
    """A text of the command line as the UTF-8 that it was typed in, whatever the locale says of it."""
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeError:
        return text


def window_within(store: Path, window: int | None) -> int:
    """The window asked for, or the default one as far as the model of a store takes it."""
    from edgemoe.calib.text import DEFAULT_WINDOW
    from edgemoe.models import read_spec
    from edgemoe.store import open_store

    if window is not None:
        return window
    return min(DEFAULT_WINDOW, read_spec(open_store(store).config).max_context)


def read_text(path: Path) -> str:
    """The content of a text file.

    Raises:
        RequestError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from None


def read_texts(paths: Sequence[Path]) -> dict[str, str]:
    """The contents of text files by their names; by their whole paths where names would be the same."""
    is_told_apart = len({path.name for path in paths}) == len(paths)
    return {path.name if is_told_apart else str(path): read_text(path) for path in paths}


def only_one(paths: Sequence[Path] | None, option: str) -> Path | None:
    """The path of an option that can be given once: of two the first would be dropped in silence.

    Raises:
        RequestError: there are more.
    """
    if paths and len(paths) > 1:
        raise RequestError(f"{option} can be given once here; join the files, or run once for each")
    return paths[0] if paths else None


def refuse_output(path: Path) -> None:
    """Refuse, before the work begins, what could not be written at the end or would replace another.

    Raises:
        RequestError: saying so.
    """
    if path.exists() or path.is_symlink():
        raise RequestError(f"{path} exists; choose another name, or remove it")
    refuse_folder_of(path)


def refuse_folder_of(path: Path) -> None:
    """Refuse a file or folder to be made where nothing can be written.

    Raises:
        RequestError: saying so.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise RequestError(f"{path}: there is no folder {folder}; make it first")
    try:
        with TemporaryFile(dir=folder):  # permission alone does not tell: the file system may be read-only
            pass
    except OSError as error:
        raise RequestError(f"{path}: {folder} cannot be written: {error.strerror}") from None


def refuse_without(package: str, what: str, extra: str) -> None:
    """Refuse what needs a package that is not installed.

    Raises:
        RequestError: saying how to install it.
    """
    if find_spec(package) is None:
        raise RequestError(f"{what} needs {package}: pip install 'edgemoe[{extra}]'")
