"""Every model type of transformers whose experts can come from a store: run, compared, and written down.

    python benchmarks/transformers_types.py            the table of docs/transformers.md
    python benchmarks/transformers_types.py dbrx zaya  these only, printed

Of each a tiny random model is saved, its experts are converted, and logits with experts from the store are
compared with those of plain transformers, with weights as they are and at 8 bits; then 12 greedy tokens.
"""

from __future__ import annotations

import re
import sys
import tempfile
import warnings
from pathlib import Path

import torch
import transformers
from tiny_transformers import OTHERS, VOCABULARY, model_class, model_folders, tiny_model

from edgemoe.integrations.transformers import EdgeMoEConfig, convert_experts
from edgemoe.store.expert_modules import ExpertModule, read_expert_modules
from edgemoe.store.store import open_store

PAGE = Path(__file__).resolve().parent.parent / "docs" / "transformers.md"
MARKED = re.compile(r"(<!-- types -->\n).*?(<!-- end of types -->)", re.DOTALL)
HEAD = [
    "| model | class | experts | f32 | 8 bits | tokens |",
    "|---|---|---|---|---|---|",
]
NUM_TOKENS = 12


def main() -> None:
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    rows = []
    for folder in sys.argv[1:] or model_folders():
        rows.append(row(folder))
        print(rows[-1], flush=True)
    if len(sys.argv) == 1:
        table = "\n".join([*HEAD, *rows]) + "\n"
        PAGE.write_text(MARKED.sub(lambda match: match[1] + table + match[2], PAGE.read_text()))


def row(folder: str) -> str:
    """A line of the table; where a type does not run, the reason in it."""
    name = f"| `{folder}` | {model_class(folder).__name__} |"
    try:
        with tempfile.TemporaryDirectory() as place:
            return f"{name} {compare(folder, Path(place))} |"
    except Exception as error:
        return f"{name} fails: {type(error).__name__}: {str(error).splitlines()[0]} | | | |"


def compare(folder: str, place: Path) -> str:
    """What the experts are, change of logits with the store's, and whether greedy tokens are the same."""
    tiny_model(folder).save_pretrained(place / "model")
    kind = model_class(folder)
    plain = kind.from_pretrained(place / "model", dtype=torch.float32).eval()
    ids = torch.randint(3, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(1))
    expected, changes, stored = logits(plain, ids), [], {}
    for bits in ("f32", "8"):
        store = place / bits
        convert_experts(place / "model", store, bits)
        config = EdgeMoEConfig(store=store)
        stored[bits] = kind.from_pretrained(place / "model", quantization_config=config, dtype=torch.float32)
        change = logits(stored[bits].eval(), ids) - expected
        changes.append(change.norm(dim=-1) / expected.norm(dim=-1))
    modules = read_expert_modules(open_store(place / "f32", experts_alone=True)).modules
    same = "–"
    if plain.can_generate() and folder != "diffusion_gemma":  # which draws a canvas at random
        same = "same" if tokens(plain, ids) == tokens(stored["f32"], ids) else "differ"
    # Where a choice of experts falls otherwise a position changes much: the routers are random.
    numbers = f"{changes[0].max():.1e} | {changes[1].median():.1e}"
    return f"{described(modules[-1], folder)} | {numbers} | {same}"


def described(module: ExpertModule, folder: str) -> str:
    """How the experts are made."""
    words = [module.activation.partition(":")[0], "gated" if module.has_gate else "no gate"]
    words += ["biases"] if module.has_bias else []
    words += ["by replacement"] if folder in OTHERS else []
    return ", ".join(words)


def logits(model: transformers.PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Of all positions; models that draw at random do so alike."""
    torch.manual_seed(2)
    decoder = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=ids, **decoder).logits


def tokens(model: transformers.PreTrainedModel, ids: torch.Tensor) -> list[int]:
    """The likeliest tokens, one after the other."""
    made = model.generate(
        ids[:1],
        attention_mask=torch.ones_like(ids[:1]),
        max_new_tokens=NUM_TOKENS,
        min_new_tokens=NUM_TOKENS,
        do_sample=False,
    )
    return made[0].tolist()


if __name__ == "__main__":
    main()
