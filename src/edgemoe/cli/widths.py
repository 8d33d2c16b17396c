"""The options that say which bit widths a store gets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True)
class UniformArguments:
    """One width for all experts, one for all other matrices; None: as stored where a format holds that."""

    bits: Annotated[
        str | None,
        typer.Option(
            "--bits",
            metavar="2|3|4|6|8|t2|t3|bf16|f16|f32",
            help="Bits per expert weight; t2 and t3 take 2.1 and 3.1."
            "  [default: as stored in GGUF, MXFP4 and NVFP4, else 4]",
            show_default=False,
        ),
    ] = None
    dense_bits: Annotated[
        str | None,
        typer.Option(
            "--dense-bits",
            metavar="2|3|4|6|8|bf16|f16|f32",
            help="Bits per weight of all other matrices: attention, embedding, head."
            "  [default: as stored in GGUF, else 8]",
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True)
class MeasuredArguments:
    """A width for every expert, by measurement, made before or now; and what experts are rounded for."""

    plan_file: Annotated[
        Path | None,
        typer.Option(
            "--plan",
            metavar="FILE",
            help="Give every expert the width that edgemoe plan chose.",
            show_default=False,
        ),
    ] = None
    tolerance: Annotated[
        str | None,
        typer.Option(
            "--tolerance",
            metavar="P%",
            help="Make the smallest store whose perplexity rises by no more than this.",
            show_default=False,
        ),
    ] = None
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="SIZE",
            help="Make the best store whose experts take no more than this.",
            show_default=False,
        ),
    ] = None
    texts: Annotated[
        list[Path] | None,
        typer.Option(
            "--text",
            metavar="FILE",
            help="UTF-8 text that --tolerance and --size measure on; can be repeated.",
            show_default=False,
        ),
    ] = None
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace",
            metavar="FOLDER",
            help="Round weights of 2 to 6 bits so that outputs change least on the text of this trace, or"
            " profile, of the model."
            "  [default: PLAN.trace, where there is one]",
            show_default=False,
        ),
    ] = None
