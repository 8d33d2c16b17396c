"""Options that several commands share, so that they are spelt and explained once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemoe.cli.given import as_utf8
from edgemoe.errors import RequestError

if TYPE_CHECKING:
    from edgemoe.api import Model
    from edgemoe.executors import ExecutorOptions

StoreArgument = Annotated[
    Path,
    typer.Argument(metavar="STORE", help="Store: a folder made by convert, a name shown by list, or a URL."),
]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="Cap on the memory of the whole process, such as 2GiB or 800MiB.  "
        "[default: what is free on the machine or in its cgroup, minus a margin]",
        show_default=False,
    ),
]
ContextOption = Annotated[
    int | None,
    typer.Option(
        "--context",
        metavar="TOKENS",
        min=1,
        help="Longest prompt plus answer; its key/value cache is part of the budget.  [default: 4096, or the"
        " model's most]",
        show_default=False,
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        min=1,
        help="Threads that compute.  [default: one per core]",
        show_default=False,
    ),
]
TierOption = Annotated[
    str | None,
    typer.Option(
        "--tier",
        metavar="SIZE",
        help="For a store at a URL: how much of this disk may keep experts once they were read; 0 keeps none."
        "  [default: room for all, at most a quarter of what is free]",
        show_default=False,
    ),
]
DraftOption = Annotated[
    str,
    typer.Option(
        "--draft",
        metavar="auto|none|text|mtp|STORE",
        help="Guess the next tokens and check several in one step, while that is faster; answers stay the"
        " same. text: guess what followed the same words earlier; mtp: use the model's own layer for further"
        " tokens; STORE: use this small model; auto: mtp if the store has it and all experts fit, else text.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")]
DenseBitsOption = Annotated[
    str | None,
    typer.Option(
        "--dense-bits",
        metavar="2|3|4|6|8|bf16|f16|f32",
        help="Bits per weight of all other matrices.  [default: 8]",
        show_default=False,
    ),
]
NoMtpOption = Annotated[
    bool,
    typer.Option("--no-mtp", help="Leave out the model's layer for further tokens (MTP), if it has one."),
]
MaxTextTokensOption = Annotated[
    int,
    typer.Option("--max-tokens", metavar="N", min=2, help="Tokens to use in all, shared among the texts."),
]
WindowOption = Annotated[
    int | None,
    typer.Option(
        "--window",
        metavar="TOKENS",
        min=2,
        help="Tokens that the model sees at once.  [default: 512, or the model's context]",
        show_default=False,
    ),
]
MaxTokensOption = Annotated[
    int, typer.Option("--max-tokens", metavar="N", min=1, help="Most tokens of the answer.")
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
    """How answers are sampled and where they end. None: the option was not given."""

    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            metavar="N",
            min=1,
            help="Most tokens of the answer.  [default: 256; in chat 1024]",
            show_default=False,
        ),
    ] = None
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature",
            metavar="T",
            min=0.0,
            help=f"Randomness; 0 always takes the most likely token. {_own('0; in chat 0.7')}",
            show_default=False,
        ),
    ] = None
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k",
            metavar="K",
            min=0,
            help=f"Draw from the K most likely tokens; 0: from all. {_own(0)}",
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
            help="Draw from the most likely tokens that together have this probability."
            f" {_own('1; in chat 0.9')}",
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
            help=f"Leave out tokens less likely than this share of the most likely one. {_own(0)}",
            show_default=False,
        ),
    ] = None
    repetition_penalty: Annotated[
        float | None,
        typer.Option(
            "--repetition-penalty",
            metavar="X",
            min=0.0,
            help=f"Above 1, tokens that are already in the text become less likely. {_own(1)}",
            show_default=False,
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", metavar="N", min=0, help="The same seed gives the same answer.", show_default=False
        ),
    ] = None
    stop: Annotated[
        list[str] | None,
        typer.Option(
            "--stop",
            metavar="TEXT",
            help="End the answer before this text; can be repeated.",
            show_default=False,
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
        help="Value for the chat template, such as enable_thinking=false; can be repeated.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class MeasuringArguments:
    """How a model is measured on text."""

    dense_bits: DenseBitsOption = None
    max_tokens: MaxTextTokensOption = 32768
    window: WindowOption = None


@dataclass(frozen=True)
class WorkArguments:
    """Where work that can be shared runs."""

    executor: Annotated[
        str,
        typer.Option(
            "--executor",
            metavar="NAME",
            help="Where the work runs: local, local:4 (four processes), ray, ray://HOST:10001, slurm or"
            " slurm:PARTITION. The result is the same everywhere. Every worker must see all folders.",
        ),
    ] = "local"
    num_workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=1,
            help="Workers at once; each may take --memory.  [default: 1; with ray as many as have room, with"
            " slurm 4]",
            show_default=False,
        ),
    ] = None
    num_cores: Annotated[
        int | None,
        typer.Option(
            "--worker-cores",
            metavar="N",
            min=1,
            help="Cores of each worker of ray or slurm.  [default: those of the smallest node; with slurm 8]",
            show_default=False,
        ),
    ] = None

    def options(self, memory: str | None) -> ExecutorOptions:
        """The executor asked for, whose workers take so much memory each."""
        from edgemoe.executors import ExecutorOptions
        from edgemoe.units import parse_size

        memory_bytes = None if memory is None else parse_size(memory)
        return ExecutorOptions(self.executor, self.num_workers, self.num_cores, memory_bytes)
