"""Options that several commands share, so that they are spelt and explained once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edgemoe.errors import RequestError

DEFAULT_WINDOW = 512

StoreArgument = Annotated[Path, typer.Argument(metavar="STORE", help="Folder made by convert.")]
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
TemperatureOption = Annotated[
    float,
    typer.Option("--temperature", metavar="T", min=0.0, help="0 always takes the likeliest token."),
]
TopKOption = Annotated[
    int, typer.Option("--top-k", metavar="K", min=0, help="Sample among the K likeliest; 0: all.")
]
TopPOption = Annotated[
    float,
    typer.Option(
        "--top-p",
        metavar="P",
        min=0.0,
        max=1.0,
        help="Sample among the likeliest tokens that hold this share of the probability.",
    ),
]
MinPOption = Annotated[
    float,
    typer.Option(
        "--min-p",
        metavar="P",
        min=0.0,
        max=1.0,
        help="Leave out tokens less likely than this share of the likeliest.",
    ),
]
RepetitionPenaltyOption = Annotated[
    float,
    typer.Option(
        "--repetition-penalty",
        metavar="X",
        min=0.0,
        help="Above 1 makes tokens that are already there less likely.",
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", min=0, help="Same seed, same answer.", show_default=False),
]
StopOption = Annotated[
    list[str] | None,
    typer.Option("--stop", metavar="TEXT", help="End before this text; may be given again.",
                 show_default=False),
]  # fmt: skip


def sampling(
    max_tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    repetition_penalty: float,
    seed: int | None,
    stop: list[str] | None,
) -> dict[str, Any]:
    """The keyword arguments of ``Model.generate`` and its siblings.

    Raises:
        RequestError: an empty text to stop at.
    """
    if stop and "" in stop:
        raise RequestError("--stop '': every answer has that; give some text")
    return {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
        "stop": tuple(stop or ()),
    }


def window_within(store: Path, window: int | None) -> int:
    """The window asked for, or the default one as far as the model of a store takes it."""
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
    """Refuse, before the work begins, a file that could not be written at the end or would replace another.

    Raises:
        RequestError: saying so.
    """
    if path.exists():
        raise RequestError(f"{path} exists; choose another name, or remove it")
    if not path.absolute().parent.is_dir():
        raise RequestError(f"{path}: there is no folder {path.absolute().parent}; make it first")
