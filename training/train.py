"""Train the reference model: `python training/train.py --data DIR --out DIR --minutes M`.

Guarantees: fixed seeds; checkpoints are replaced atomically; running the same command again resumes
exactly. The rate follows minutes of activity: a step counts for at most a few seconds, so that a
paused process does not lose its schedule. `--steps N` sets the schedule by steps instead.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import GenerationConfig, Qwen3MoeConfig, Qwen3MoeForCausalLM

from data import SOURCES, Mixture, documents, encode
from optim import optimizers
from tokenizer import CHAT_TEMPLATE, save_tokenizer, train_tokenizer

WARMUP = 0.03  # share of the run
LONGEST_STEP_S = 12.0  # what a step may count for; a longer one was a pause
LOG_EVERY = 10


def model_config(vocab: int) -> Qwen3MoeConfig:
    """22 M parameters, about 6 M of them active for a token."""
    return Qwen3MoeConfig(
        vocab_size=vocab, hidden_size=256, intermediate_size=768, num_hidden_layers=8,
        num_attention_heads=8, num_key_value_heads=4, head_dim=32, num_experts=32,
        num_experts_per_tok=4, moe_intermediate_size=96, norm_topk_prob=True,
        tie_word_embeddings=True, max_position_embeddings=1024, output_router_logits=True,
        router_aux_loss_coef=0.005, bos_token_id=0, eos_token_id=0,
    )


def rate(progress: float) -> float:
    """Linear warm-up, then linear to zero; `progress` runs from 0 to 1."""
    return max(0.0, min(progress / WARMUP, (1 - progress) / (1 - WARMUP), 1.0))


def prepare(data: Path, out: Path, vocab: int) -> tuple[Tokenizer, dict[str, np.ndarray]]:
    """The tokenizer and the tokens per source; made once and kept in `out`."""
    path, cache = out / "bpe.json", out / "tokens.npz"
    present = [s for s in SOURCES if (data / s.train).exists()]
    if not cache.exists():
        texts = {s.name: documents(data / s.train, s.max_mb) for s in present}
        tokenizer = train_tokenizer((t for rows in texts.values() for t in rows[:2000]), vocab)
        tokenizer.save(str(path))
        np.savez(cache, **{name: encode(tokenizer, rows) for name, rows in texts.items()})
    with np.load(cache) as stored:
        return Tokenizer.from_file(str(path)), {name: stored[name] for name in stored.files}


def save_state(path: Path, state: dict[str, object]) -> None:
    """Write beside, then rename: a reader sees the old file or the new one."""
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def export(model: Qwen3MoeForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the model in bf16 with its tokenizer, as `AutoModelForCausalLM` reads them."""
    copy = Qwen3MoeForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=[0, 2])
    copy.to(torch.bfloat16).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)


def draw_losses(log: Path, picture: Path) -> None:
    """The training loss over tokens, as a PNG; nothing without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    figure = Figure(figsize=(7, 4))
    axes = figure.add_subplot(xlabel="million tokens", ylabel="training loss")
    axes.plot([r["tokens"] / 1e6 for r in rows], [r["loss"] for r in rows])
    figure.savefig(picture, dpi=120)


def train(args: argparse.Namespace) -> float:
    """Run to the end of the schedule, or to `--stop-after` steps; return the last mean loss."""
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer, rows = prepare(args.data, args.out, args.vocab)
    mixture = Mixture(rows, {s.name: s.weight for s in SOURCES}, args.seed)
    model = Qwen3MoeForCausalLM(model_config(tokenizer.get_vocab_size())).to(device)
    model.set_experts_implementation("grouped_mm")
    optims = optimizers(model, args.lr)
    step, active, losses = 0, 0.0, []
    state_file, log = args.out / "state.pt", args.out / "log.jsonl"
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        for optim, held in zip(optims, state["optims"], strict=True):
            optim.load_state_dict(held)
        step, active = state["step"], state["active"]
    saved_at = time.monotonic()
    while True:
        progress = step / args.steps if args.steps else active / (args.minutes * 60)
        if progress >= 1 or (args.stop_after and step >= args.stop_after):
            break
        began = time.monotonic()
        x = mixture.batch(step, args.batch, args.length).to(device)
        for optim in optims:
            for group in optim.param_groups:
                group["lr"] = args.lr * max(rate(progress), 1e-3)
        with torch.autocast(device, torch.bfloat16):
            loss = model(x, labels=x).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optim in optims:
            optim.step()
            optim.zero_grad()
        step, active = step + 1, active + min(time.monotonic() - began, LONGEST_STEP_S)
        losses.append(loss.item())
        if step % LOG_EVERY == 0:
            row = {"step": step, "tokens": step * x.numel(), "active_s": round(active, 1),
                   "loss": round(float(np.mean(losses[-LOG_EVERY:])), 4), "rate": round(rate(progress), 4)}
            with log.open("a") as file:
                print(json.dumps(row), file=file)
            print(row, flush=True)
        if time.monotonic() - saved_at > args.save_every_s:
            save_state(state_file, _state(model, optims, step, active))
            saved_at = time.monotonic()
    save_state(state_file, _state(model, optims, step, active))
    export(model.cpu(), tokenizer, args.out / "model")
    if log.exists():
        draw_losses(log, args.out / "loss.png")
    return float(np.mean(losses[-LOG_EVERY:]))


def _state(model: torch.nn.Module, optims: list[torch.optim.Optimizer], step: int, active: float) -> dict[str, object]:
    return {"model": model.state_dict(), "optims": [o.state_dict() for o in optims], "step": step, "active": active}


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--steps", type=int, default=0, help="schedule by steps instead of minutes")
    parser.add_argument("--stop-after", type=int, default=0, help="stop early, keeping the schedule")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--vocab", type=int, default=6144)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--save-every-s", type=float, default=120)
    return parser.parse_args(argv)


if __name__ == "__main__":
    print(f"final loss {train(parse()):.3f}")
