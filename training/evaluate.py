"""Held-out loss of a model per domain, by transformers and by EdgeMoE on the same tokens.

    python training/evaluate.py --data DIR --model DIR [--store STORE] [--json]

Without --store the checkpoint is converted at full precision into a temporary one, and the two must agree
within 0.1 %; with a store of fewer bits the difference is what those bits cost.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from data import SOURCES, documents, encode
from rich.console import Console
from rich.progress import track
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

import edgemoe
from edgemoe.convert import convert
from edgemoe.quant import BitPlan

WINDOW, STRIDE = 512, 256  # every token but a text's first few follows at least 256 others
TOLERANCE = 1e-3


@dataclass(frozen=True)
class DomainLoss:
    """Nats per token of one domain by both programs."""

    num_tokens: int
    transformers: float
    edgemoe: float

    @property
    def difference(self) -> float:
        """Of the perplexities, relative."""
        return math.exp(self.edgemoe - self.transformers) - 1


def held_out_tokens(data: Path, model: Path, num_tokens: int) -> dict[str, list[int]]:
    """The beginning of every domain's held-out file, in the form in which it is trained on."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokens = {}
    for source in SOURCES:
        path = data / source.held_out
        if path.exists():
            tokens[source.name] = encode(tokenizer, documents(source, path))[:num_tokens].tolist()
    if not tokens:
        raise SystemExit(f"{data} holds none of the held-out files named in data.py")
    return tokens


@torch.inference_mode()
def loss_by_transformers(model: torch.nn.Module, token_ids: Sequence[int]) -> float:
    """Mean nats per token by the sliding window of `edgemoe eval`."""
    total, scored = 0.0, 1
    for start in range(0, len(token_ids), STRIDE):
        piece = torch.tensor([token_ids[start : start + WINDOW]])
        if start + piece.shape[1] <= scored:
            break
        logits = model(piece).logits[0, scored - start - 1 : -1].double()
        total += torch.nn.functional.cross_entropy(logits, piece[0, scored - start :], reduction="sum").item()
        scored = start + piece.shape[1]
    return total / (len(token_ids) - 1)


@contextmanager
def full_precision_store(model: Path):
    """The checkpoint as a store without any loss, removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        convert(model, store, BitPlan.uniform("f32", "f32"))
        yield store


def measure(model: Path, store: Path, texts: Mapping[str, Sequence[int]]) -> dict[str, DomainLoss]:
    """Both losses of every domain."""
    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    reference.set_experts_implementation("grouped_mm")
    losses = {}
    with edgemoe.load(store, context=WINDOW) as engine:
        for name, tokens in track(texts.items(), "scoring", total=len(texts), console=Console(stderr=True)):
            ours = engine.perplexity(tokens, window=WINDOW, stride=STRIDE).nats_per_token
            losses[name] = DomainLoss(len(tokens), loss_by_transformers(reference, tokens), ours)
    return losses


def table(losses: Mapping[str, DomainLoss]) -> str:
    """The losses in Markdown."""
    rows = [
        "| domain | tokens | nats per token | perplexity, transformers | perplexity, EdgeMoE | difference |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, loss in losses.items():
        rows.append(
            f"| {name} | {loss.num_tokens} | {loss.transformers:.3f} | {math.exp(loss.transformers):.3f} "
            f"| {math.exp(loss.edgemoe):.3f} | {loss.difference:+.4%} |"
        )
    return "\n".join(rows)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--store", type=Path, help="default: a temporary one at full precision")
    parser.add_argument("--tokens", type=int, default=8192, help="of each domain")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    texts = held_out_tokens(args.data, args.model, args.tokens)
    if args.store:
        losses = measure(args.model, args.store, texts)
    else:
        with full_precision_store(args.model) as store:
            losses = measure(args.model, store, texts)
    if args.json:
        print(
            json.dumps({name: {**vars(loss), "difference": loss.difference} for name, loss in losses.items()})
        )
    else:
        print(table(losses))
    if not args.store and any(abs(loss.difference) > TOLERANCE for loss in losses.values()):
        raise SystemExit(f"the two differ by more than {TOLERANCE:.1%}")


if __name__ == "__main__":
    main()
