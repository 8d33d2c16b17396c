"""Options that several commands share, so that they are spelt and explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgemoe.errors import RequestError

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
    """The keyword arguments of ``Model.generate`` and its siblings."""
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


def read_text(path: Path) -> str:
    """The content of a text file.

    Raises:
        RequestError: it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
