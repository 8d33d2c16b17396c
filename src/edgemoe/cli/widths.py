"""The options that say which bit widths a store gets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from edgemoe.cli.options import unset


@dataclass(frozen=True)
class UniformArguments:
    """One width for all experts, one for all other matrices; None: as stored where a format holds that."""

    bits: Annotated[
        str | None,
        unset(
            "--bits",
            "2|3|4|6|8|t2|t3|bf16|f16|f32",
            "Bits per expert weight; t2 and t3 take 2.1 and 3.1."
            "  [default: as stored in GGUF, MXFP4 and NVFP4, else 4]",
        ),
    ] = None
    dense_bits: Annotated[
        str | None,
        unset(
            "--dense-bits",
            "2|3|4|6|8|bf16|f16|f32",
            "Bits per weight of all other matrices: attention, embedding, head."
            "  [default: as stored in GGUF, else 8]",
        ),
    ] = None


@dataclass(frozen=True)
class MeasuredArguments:
    """A width for every expert, by measurement, made before or now; and what experts are rounded for."""

    plan_file: Annotated[
        Path | None,
        unset("--plan", "FILE", "Give every expert the width that edgemoe plan chose."),
    ] = None
    tolerance: Annotated[
        str | None,
        unset("--tolerance", "P%", "Make the smallest store whose perplexity rises by no more than this."),
    ] = None
    size: Annotated[
        str | None,
        unset("--size", "SIZE", "Make the best store whose experts take no more than this."),
    ] = None
    texts: Annotated[
        list[Path] | None,
        unset("--text", "FILE", "UTF-8 text that --tolerance and --size measure on; can be repeated."),
    ] = None
    trace: Annotated[
        Path | None,
        unset(
            "--trace",
            "FOLDER",
            "Round weights of 2 to 6 bits so that outputs change least on the text of this trace, or"
            " profile, of the model."
            "  [default: PLAN.trace, where there is one]",
        ),
    ] = None
