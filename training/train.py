"""Train the reference model: `python training/train.py --data DIR --out DIR --steps N`.

Guarantees: fixed seeds; checkpoints are replaced atomically; running the same command again resumes
exactly. The rate warms up, stays, and falls to zero over the last part of the run, so that a run that
has not begun to fall can be lengthened or shortened by resuming with another `--steps`: the result is
that of a run which had this number from the start.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from data import SOURCES, Mixture, documents, encode
from optim import optimizers
from tokenizer import CHAT_TEMPLATE, save_tokenizer, train_tokenizer
from tokenizers import Tokenizer
from transformers import GenerationConfig, Qwen3MoeConfig, Qwen3MoeForCausalLM

WARMUP_STEPS = 50
DECAY = 0.3  # share of the run in which the rate falls to zero
LOG_EVERY = 10
BALANCE = 0.01  # weight of the load-balancing loss


def imbalance(router_logits: Sequence[torch.Tensor], top_k: int) -> torch.Tensor:
    """The family's load-balancing loss, mean over layers: `top_k` when all experts are used alike.

    For every layer by itself. The one inside transformers adds up all layers first, so that an expert that
    one layer never uses is made good by its namesake in another: a third of the experts stayed idle with it.
    """
    losses = []
    for logits in router_logits:
        shares = torch.softmax(logits.float(), dim=-1)
        chosen = torch.zeros_like(shares).scatter_(1, logits.topk(top_k, dim=-1).indices, 1.0)
        losses.append(shares.shape[1] * (chosen.mean(dim=0) * shares.mean(dim=0)).sum())
    return torch.stack(losses).mean()


@dataclass(frozen=True)
class Size:
    """What `--size` chooses: the shape of the model."""

    layers: int
    width: int
    experts: int
    expert_width: int


SIZES = {
    "reference": Size(layers=6, width=256, experts=32, expert_width=96),  # 16.4 M parameters, 4 M active
    "smoke": Size(layers=2, width=64, experts=8, expert_width=32),
}


def model_config(vocab: int, size: Size) -> Qwen3MoeConfig:
    """A `qwen3_moe` of this shape; four experts are chosen for each token."""
    return Qwen3MoeConfig(
        vocab_size=vocab, hidden_size=size.width, intermediate_size=3 * size.width,
        num_hidden_layers=size.layers, num_attention_heads=size.width // 32,
        num_key_value_heads=size.width // 64, head_dim=32, num_experts=size.experts,
        num_experts_per_tok=4, moe_intermediate_size=size.expert_width, norm_topk_prob=True,
        tie_word_embeddings=True, max_position_embeddings=1024, output_router_logits=True,
        router_aux_loss_coef=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip


def rate(step: int, steps: int) -> float:
    """The share of the full rate at a step: warm-up, plateau, linear fall."""
    left = (steps - step) / (DECAY * steps)
    return max(min(1.0, (step + 1) / WARMUP_STEPS, left), 1e-3)


def prepare(data: Path, out: Path, vocab: int) -> tuple[Tokenizer, dict[str, np.ndarray]]:
    """The tokenizer and the tokens per source; made once and kept in `out`."""
    path, cache = out / "bpe.json", out / "tokens.npz"
    if not cache.exists():
        present = [s for s in SOURCES if (data / s.train).exists()]
        if not present:
            raise SystemExit(f"{data} has none of the files named in data.py, such as {SOURCES[0].train}")
        texts = {s.name: documents(s, data / s.train) for s in present}
        tokenizer = train_tokenizer((t for rows in texts.values() for t in rows[:2000]), vocab)
        tokenizer.save(str(path))
        np.savez(cache, **{name: encode(tokenizer, rows) for name, rows in texts.items()})
    with np.load(cache) as stored:
        return Tokenizer.from_file(str(path)), {name: stored[name] for name in stored.files}


def save_state(path: Path, state: dict[str, object]) -> None:
    """Write beside, then rename: a reader sees the old file or the new one."""
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def draw_losses(log: Path, picture: Path) -> None:
    """The training loss over tokens, as a PNG; nothing without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    figure = Figure(figsize=(7, 4), layout="tight")
    axes = figure.add_subplot(xlabel="million tokens", ylabel="training loss (nats per token)")
    axes.plot([r["tokens"] / 1e6 for r in rows], [r["loss"] for r in rows], linewidth=0.8)
    axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=120)


class Run(ABC):
    """A model with its optimizers and its place in the schedule, kept in `out/state.pt`."""

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        args.out.mkdir(parents=True, exist_ok=True)
        self.args = args
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer, rows = prepare(args.data, args.out, args.vocab)
        self.model = self.build(rows).to(self.device)
        self.optims = self.optimizers()
        self.step, self.tokens = 0, 0
        self.state_file, self.log = args.out / "state.pt", args.out / "log.jsonl"
        if self.state_file.exists():
            self._load()

    @abstractmethod
    def build(self, rows: dict[str, np.ndarray]) -> torch.nn.Module:
        """The model, untrained; what it learns from is kept for `losses`."""

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """What updates the model."""
        return optimizers(self.model, self.args.lr)

    @abstractmethod
    def losses(self, share: float) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Loss of this step's batch, its imbalance, and its tokens; `share` of the run is done."""

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write the model in bf16 with its tokenizer."""

    def _load(self) -> None:
        state = torch.load(self.state_file, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optim, held in zip(self.optims, state["optims"], strict=True):
            optim.load_state_dict(held)
        self.step, self.tokens = state["step"], state["tokens"]
        if self.log.exists():  # lines after the kept state belong to steps that are done again
            rows = [
                line for line in self.log.read_text().splitlines() if json.loads(line)["step"] <= self.step
            ]
            self.log.write_text("".join(f"{row}\n" for row in rows))

    def save(self) -> None:
        """Keep everything that resuming needs."""
        optims = [optim.state_dict() for optim in self.optims]
        state = {"model": self.model.state_dict(), "optims": optims, "step": self.step, "tokens": self.tokens}
        save_state(self.state_file, state)

    def advance(self) -> float:
        """One step; the loss of its batch, without the balancing term."""
        for optim in self.optims:
            for group in optim.param_groups:
                group["lr"] = self.args.lr * rate(self.step, self.args.steps)
        mixed = torch.autocast(self.device, torch.bfloat16) if self.args.bf16 else nullcontext()
        with mixed:
            loss, unevenness, num_tokens = self.losses(self.step / self.args.steps)
        (loss + BALANCE * unevenness).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optim in self.optims:
            optim.step()
            optim.zero_grad()
        self.step, self.tokens = self.step + 1, self.tokens + num_tokens
        return loss.item()


class DecoderRun(Run):
    """The `qwen3_moe` of `--size` on windows of text."""

    def build(self, rows: dict[str, np.ndarray]) -> torch.nn.Module:
        """See Run."""
        self.mixture = Mixture(rows, {s.name: s.weight for s in SOURCES}, self.args.seed)
        config = model_config(self.tokenizer.get_vocab_size(), SIZES[self.args.size])
        model = Qwen3MoeForCausalLM(config)
        model.set_experts_implementation("grouped_mm")
        if self.args.compile:
            for layer in model.model.layers:
                layer.compile()
        return model

    def losses(self, share: float) -> tuple[torch.Tensor, torch.Tensor, int]:
        """See Run."""
        # Windows are twice as long while the rate falls: positions are learnt cheaply, then stretched.
        stretch = 2 if share >= 1 - DECAY else 1
        batch = self.mixture.batch(self.step, self.args.batch // stretch, self.args.length * stretch)
        tokens = batch.to(self.device)
        result = self.model(tokens, labels=tokens)
        unevenness = imbalance(result.router_logits, self.model.config.num_experts_per_tok)
        return result.loss, unevenness, tokens.numel()

    def export(self, folder: Path) -> None:
        """See Run; `AutoModelForCausalLM` reads the folder."""
        copy = Qwen3MoeForCausalLM(self.model.config)
        copy.load_state_dict(self.model.state_dict())
        copy.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=[0, 2])
        copy.to(torch.bfloat16).save_pretrained(folder)
        save_tokenizer(self.tokenizer, folder)
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)


def train(run: Run) -> float:
    """Run to the end of the schedule, or to `--stop-after` steps; return the last mean loss."""
    args, losses = run.args, []
    began = saved_at = time.monotonic()
    first, last = run.tokens, min(args.steps, args.stop_after or args.steps)
    while run.step < last:
        losses.append(run.advance())
        if not math.isfinite(losses[-1]):
            raise SystemExit(f"loss is {losses[-1]} at step {run.step}: lower --lr and begin anew")
        if run.step % LOG_EVERY == 0:
            speed = (run.tokens - first) / (time.monotonic() - began)
            loss = float(np.mean(losses[-LOG_EVERY:]))
            with run.log.open("a") as file:
                print(json.dumps({"step": run.step, "tokens": run.tokens, "loss": round(loss, 4)}), file=file)
            left = (last - run.step) * args.batch * args.length / speed / 60
            print(
                f"step {run.step}/{last}  loss {loss:.3f}  {speed:.0f} tokens/s  {left:.0f} min left",
                flush=True,
            )
        if time.monotonic() - saved_at > args.save_every_s:
            run.save()
            saved_at = time.monotonic()
    run.save()
    run.model.cpu()
    run.export(args.out / "model")
    if run.log.exists():
        draw_losses(run.log, args.out / "loss.png")
    return float(np.mean(losses[-LOG_EVERY:]))


def parser(description: str) -> argparse.ArgumentParser:
    """The options that every model is trained with."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the files named in data.py")
    parser.add_argument("--out", type=Path, required=True, help="state, log and the finished model go here")
    parser.add_argument("--steps", type=int, default=2000, help="length of the run, which sets the schedule")
    parser.add_argument("--stop-after", type=int, default=0, help="stop early, keeping the schedule")
    parser.add_argument("--batch", type=int, default=16, help="windows per step")
    parser.add_argument(
        "--length", type=int, default=256, help="tokens per window; doubled while the rate falls"
    )
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--save-every-s", type=float, default=120)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True, help="bf16 products")
    return parser


def parse() -> argparse.Namespace:
    """The command line."""
    options = parser(__doc__ or "")
    options.add_argument("--size", choices=SIZES, default="reference")
    options.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=True, help="needs a C++ compiler"
    )
    return options.parse_args()


if __name__ == "__main__":
    print(f"final loss {train(DecoderRun(parse())):.3f}")
