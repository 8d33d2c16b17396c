"""Train a small Switch model: `python training/train_switch.py --data DIR --out DIR --steps N`.

An encoder-decoder whose every layer has top-1 experts, on the tasks of tasks.py. Guarantees and schedule
are those of train.py, whose parts it uses.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from optim import optimizers
from tasks import EOS, PAD, Tasks, questions, with_sentinels
from train import Run, imbalance, parser, train
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    SwitchTransformersConfig,
    SwitchTransformersForConditionalGeneration,
)

# Read as plain text; dialogue is asked for as questions instead.
PLAIN = ("stories", "children", "fairytales", "books", "wikipedia")

# Parts of the names of what AdamW updates.
ADAM_PARTS = ("shared.", "router.", "relative_attention_bias", "experts.")


@dataclass(frozen=True)
class Size:
    """What `--size` chooses: layers of encoder and of decoder, and their widths."""

    layers: int
    width: int
    experts: int
    expert_width: int


SIZES = {
    "reference": Size(layers=4, width=256, experts=8, expert_width=384),  # 17 M parameters
    "smoke": Size(layers=2, width=64, experts=4, expert_width=64),
}


def model_config(vocab: int, size: Size) -> SwitchTransformersConfig:
    """A `switch_transformers` of this shape; all layers are sparse."""
    return SwitchTransformersConfig(
        vocab_size=vocab, d_model=size.width, d_kv=32, d_ff=size.expert_width, num_layers=size.layers,
        num_decoder_layers=size.layers, num_sparse_encoder_layers=size.layers,
        num_sparse_decoder_layers=size.layers, num_heads=size.width // 32, num_experts=size.experts,
        expert_capacity=64, dropout_rate=0.0, router_aux_loss_coef=0.0, router_z_loss_coef=0.0,
        pad_token_id=PAD, eos_token_id=EOS, decoder_start_token_id=PAD,
    )  # fmt: skip


class SwitchRun(Run):
    """The `switch_transformers` of `--size` on pairs of prompt and answer."""

    def build(self, rows: dict[str, np.ndarray]) -> torch.nn.Module:
        """See Run."""
        with_sentinels(self.tokenizer)
        path = self.args.data / "fairytaleqa/train.jsonl"
        asked = questions(path, self.tokenizer, self.args.length) if path.exists() else []
        plain = {name: row for name, row in rows.items() if name in PLAIN}
        self.tasks = Tasks(plain, asked, self.tokenizer, self.args.seed)
        vocab = -(-self.tokenizer.get_vocab_size() // 32) * 32
        return SwitchTransformersForConditionalGeneration(model_config(vocab, SIZES[self.args.size]))

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """See Run; orthogonalising every expert by itself would cost twice what a step does."""
        return optimizers(self.model, self.args.lr, ADAM_PARTS)

    def losses(self, share: float) -> tuple[torch.Tensor, torch.Tensor, int]:
        """See Run."""
        batch = self.tasks.batch(self.step, self.args.batch, self.args.length)
        result = self.model(**batch.to(self.device), output_router_logits=True)
        layers = [*result.encoder_router_logits, *result.decoder_router_logits]
        unevenness = imbalance([logits.flatten(0, 1) for logits in layers], top_k=1)
        return result.loss, unevenness, batch.input_ids.numel() + batch.labels.numel()

    def export(self, folder: Path) -> None:
        """See Run; `AutoModelForSeq2SeqLM` reads the folder."""
        copy = SwitchTransformersForConditionalGeneration(self.model.config)
        copy.load_state_dict(self.model.state_dict())
        copy.generation_config = GenerationConfig(
            pad_token_id=PAD, eos_token_id=EOS, decoder_start_token_id=PAD
        )
        copy.to(torch.bfloat16).save_pretrained(folder)
        wrapped = PreTrainedTokenizerFast(
            tokenizer_object=self.tokenizer,
            pad_token=self.tokenizer.id_to_token(PAD),
            eos_token=self.tokenizer.id_to_token(EOS),
        )
        wrapped.save_pretrained(folder)


def parse() -> argparse.Namespace:
    """The command line."""
    options = parser(__doc__ or "")
    options.add_argument("--size", choices=SIZES, default="reference")
    return options.parse_args()


if __name__ == "__main__":
    print(f"final loss {train(SwitchRun(parse())):.3f}")
