"""``edgemoe plan``: bit widths for every expert, by measurement."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemoe.cli.options import JsonOption, MemoryOption, read_text
from edgemoe.cli.output import count_progress, print_json
from edgemoe.errors import RequestError

if TYPE_CHECKING:
    from edgemoe.calib.search import Goal

# No text has more characters per token than this on average: the rest of a long file need not be encoded.
CHARACTERS = 32


def plan(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Hugging Face folder or GGUF file.")],
    texts: Annotated[
        list[Path],
        typer.Option("--text", metavar="FILE", help="UTF-8 text to calibrate on; may be given again."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="Plan to write, for convert --plan.")
    ],
    tolerance: Annotated[
        str | None,
        typer.Option("--tolerance", metavar="P%", help="Rise of perplexity to allow.", show_default=False),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="SIZE", help="Or: bytes of all experts.", show_default=False),
    ] = None,
    bits: Annotated[
        float | None,
        typer.Option("--bits", metavar="X", min=0.1, help="Or: bits per expert weight.", show_default=False),
    ] = None,
    method: Annotated[
        str, typer.Option("--method", metavar="NAME", help="knapsack, or paper: experts ranked one by one.")
    ] = "knapsack",
    dense_bits: Annotated[
        str, typer.Option("--dense-bits", metavar="2|3|4|6|8|bf16|f16|f32", help="Width of all else.")
    ] = "8",
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", metavar="N", min=2, help="Tokens in all, shared by the texts.")
    ] = 32768,
    window: Annotated[
        int, typer.Option("--window", metavar="TOKENS", min=2, help="Tokens the model sees at once.")
    ] = 512,
    memory: MemoryOption = None,
    keeps_work: Annotated[
        bool, typer.Option("--keep", help="Keep OUT.work, the stores of all widths, for the next plan.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    r"""Choose a bit width for every expert: the smallest store within a tolerance, or the best within a size.

    Half of the text chooses the widths, the other half measures the result; the tolerance is met with 95 %
    confidence on that half. The model is converted to every width on the way (beside OUT; interrupted, the
    same command goes on).

    \b
    edgemoe plan ./OLMoE-1B-7B --text book.txt --text chat.txt --tolerance 2% -o olmoe-plan.json
    edgemoe convert ./OLMoE-1B-7B olmoe.store --plan olmoe-plan.json
    edgemoe plan ./OLMoE-1B-7B --text book.txt --bits 2.75 -o olmoe-plan.json
    """
    from edgemoe.calib.search import PlanSearch
    from edgemoe.engine.tokenizer import Tokenizer
    from edgemoe.quant import format_for_bits
    from edgemoe.units import parse_size

    goal = _goal(tolerance, size, bits)
    contents = [read_text(path) for path in texts]

    def encode(folder: Path) -> list[int]:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tokenizer, share = Tokenizer(folder, config), max_tokens // len(contents)
        return [i for text in contents for i in tokenizer.encode(text[: CHARACTERS * share])[:share]]

    work = out.with_name(f"{out.name}.work")
    with PlanSearch(
        *(source, work, encode, count_progress, format_for_bits(dense_bits), window),
        None if memory is None else parse_size(memory),
    ) as search:
        choice = search.choose(goal, method)
        chosen = search.bit_plan(choice, method, ", ".join(path.name for path in texts))
    out.write_text(json.dumps(chosen.to_json(), indent=1), encoding="utf-8")
    if not keeps_work:
        shutil.rmtree(work)
    counts = dict(sorted(Counter(choice.widths.values()).items()))
    if as_json:
        print_json({"plan": str(out), "expert_bytes": choice.num_bytes, "widths": counts, **chosen.origin})
        return
    low, high = chosen.origin["interval"]
    widths = ", ".join(f"{name} ×{count}" for name, count in counts.items())
    print(f"{out}: {chosen.origin['bits_per_weight']:.2f} bits per expert weight: {widths}")
    print(
        f"perplexity {chosen.origin['perplexity_increase']:+.2%} ({low:+.2%} to {high:+.2%}) on"
        f" {chosen.origin['num_tokens']} tokens that chose nothing"
    )
    print(f"next: edgemoe convert {source} STORE --plan {out}")


def _goal(tolerance: str | None, size: str | None, bits: float | None) -> Goal:
    from edgemoe.calib.search import Goal
    from edgemoe.units import parse_size

    if sum(value is not None for value in (tolerance, size, bits)) != 1:
        raise RequestError("say what to reach: one of --tolerance, --size and --bits")
    if tolerance is None:
        return Goal(num_bytes=None if size is None else parse_size(size), bits_per_weight=bits)
    try:
        share = float(tolerance.removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not 0 < share < 10:
        raise RequestError(f"--tolerance {tolerance!r}: give a rise of perplexity such as 2%")
    return Goal(tolerance=share)
