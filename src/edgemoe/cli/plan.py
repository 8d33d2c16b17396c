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
    from edgemoe.calib.planning import Choice
    from edgemoe.calib.search import Goal
    from edgemoe.quant import BitPlan

# No text has more characters per token than this on average: the rest of a long file need not be encoded.
CHARACTERS = 32
_WINDOW = 512


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
        str,
        typer.Option(
            "--method",
            metavar="NAME",
            help="knapsack; exact: with every expert measured alone; or paper: ranked only.",
        ),
    ] = "knapsack",
    dense_bits: Annotated[
        str, typer.Option("--dense-bits", metavar="2|3|4|6|8|bf16|f16|f32", help="Width of all else.")
    ] = "8",
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", metavar="N", min=2, help="Tokens in all, shared by the texts.")
    ] = 32768,
    window: Annotated[
        int | None,
        typer.Option(
            "--window",
            metavar="TOKENS",
            min=2,
            help="Tokens the model sees at once.  [default: 512, or the model's context]",
            show_default=False,
        ),
    ] = None,
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
    goal = read_goal(tolerance, size, bits)
    work = out.with_name(f"{out.name}.work")
    chosen, choice = search_plan(
        source, texts, goal, work, method, dense_bits, max_tokens=max_tokens, window=window, memory=memory
    )
    out.write_text(json.dumps(chosen.to_json(), indent=1), encoding="utf-8")
    if not keeps_work:
        shutil.rmtree(work)
    if as_json:
        counts = dict(sorted(Counter(choice.widths.values()).items()))
        print_json({"plan": str(out), "expert_bytes": choice.num_bytes, "widths": counts, **chosen.origin})
        return
    for line in describe(chosen, choice):
        print(line)
    print(f"next: edgemoe convert {source} STORE --plan {out}")


def search_plan(
    source: Path,
    texts: list[Path],
    goal: Goal,
    work: Path,
    method: str = "knapsack",
    dense_bits: str = "8",
    *,
    max_tokens: int = 32768,
    window: int | None = None,
    memory: str | None = None,
) -> tuple[BitPlan, Choice]:
    """Choose widths by measuring on texts; leaves the stores of all widths in ``work``."""
    from edgemoe.calib.search import PlanSearch
    from edgemoe.checkpoint import open_checkpoint
    from edgemoe.engine.tokenizer import Tokenizer
    from edgemoe.models import read_spec
    from edgemoe.quant import format_for_bits
    from edgemoe.units import parse_size

    if window is None:
        opened = open_checkpoint(source)
        window = min(_WINDOW, read_spec(opened.config()).max_context)
        opened.close()
    contents = [read_text(path) for path in texts]

    def encode(folder: Path) -> list[int]:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tokenizer, share = Tokenizer(folder, config), max_tokens // len(contents)
        return [i for text in contents for i in tokenizer.encode(text[: CHARACTERS * share])[:share]]

    with PlanSearch(
        *(source, work, encode, count_progress, format_for_bits(dense_bits), window),
        None if memory is None else parse_size(memory),
    ) as search:
        choice = search.choose(goal, method)
        return search.bit_plan(choice, method, ", ".join(path.name for path in texts)), choice


def describe(plan: BitPlan, choice: Choice) -> list[str]:
    """What was chosen and what it costs, in two lines."""
    counts = sorted(Counter(choice.widths.values()).items())
    low, high = plan.origin["interval"]
    return [
        f"{plan.origin['bits_per_weight']:.2f} bits per expert weight: "
        + ", ".join(f"{name} ×{count}" for name, count in counts),
        f"perplexity {plan.origin['perplexity_increase']:+.2%} ({low:+.2%} to {high:+.2%}) on"
        f" {plan.origin['num_tokens']} tokens that chose nothing",
    ]


def read_goal(tolerance: str | None, size: str | None, bits: float | None) -> Goal:
    """What a plan is to reach, of the options that people give."""
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
