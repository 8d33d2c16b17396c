"""The options that say how a model is measured on text, and where the work runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemoe.cli.options import MaxTextTokensOption, WindowOption, unset

if TYPE_CHECKING:
    from edgemoe.executors import ExecutorOptions

CalibrationTextsOption = Annotated[
    list[Path],
    typer.Option("--text", metavar="FILE", help="UTF-8 text to calibrate on; can be repeated."),
]


@dataclass(frozen=True)
class MeasuringArguments:
    """How a model is measured on text."""

    dense_bits: Annotated[
        str | None,
        unset(
            "--dense-bits", "2|3|4|6|8|bf16|f16|f32", "Bits per weight of all other matrices.  [default: 8]"
        ),
    ] = None
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
        unset(
            "--workers",
            "N",
            "Workers at once; each may take --memory.  [default: 1; with ray as many as have room, with"
            " slurm 4]",
            min=1,
        ),
    ] = None
    num_cores: Annotated[
        int | None,
        unset(
            "--worker-cores",
            "N",
            "Cores of each worker of ray or slurm.  [default: those of the smallest node; with slurm 8]",
            min=1,
        ),
    ] = None

    def options(self, memory: str | None) -> ExecutorOptions:
        """The executor asked for, whose workers take so much memory each."""
        from edgemoe.executors import ExecutorOptions
        from edgemoe.units import parse_size

        memory_bytes = None if memory is None else parse_size(memory)
        return ExecutorOptions(self.executor, self.num_workers, self.num_cores, memory_bytes)
