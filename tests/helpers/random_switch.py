"""Random Switch Transformers against transformers: what the encoder makes of a prompt, then decoded steps.

As random_configs.py and family_check.py have it for decoders alone.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from edgemoe.checkpoint import open_checkpoint
from edgemoe.models import Decoder, Encoder, ModelSpec
from helpers.random_fields import Draw, Fields
from helpers.resident import resident_parts
from helpers.tiny_models import write_tokenizer

FAMILY = "switch_transformers"


def switch_fields(draw: Draw) -> Fields:
    """Any stack may be sparse in any layers, or dense; one of the decoder's layers at least has experts."""
    num_layers = draw.size(1, 5)
    num_decoder = draw.of(draw.size(1, 5), draw.size(1, 5), None)  # None: as many
    heads = draw.of(1, 2, 3, 5)
    return {
        "vocab_size": draw.size(64, 300),
        "d_model": draw.width,
        "d_kv": draw.size(3, 40),
        "d_ff": draw.size(5, 96),
        "num_heads": heads,
        "num_layers": num_layers,
        "num_decoder_layers": num_decoder,
        "num_sparse_encoder_layers": draw.size(0, num_layers),
        "num_sparse_decoder_layers": draw.size(1, num_decoder or num_layers),
        "num_experts": draw.of(draw.size(1, 6), draw.size(7, 20)),
        "expert_capacity": draw.of(1, 2, 5, 64),
        "router_bias": draw.flag(),
        "router_ignore_padding_tokens": draw.flag(),
        "relative_attention_num_buckets": draw.size(4, 40, 2),
        "relative_attention_max_distance": draw.size(24, 160),
        "layer_norm_epsilon": draw.of(1e-6, 1e-5, 1e-3),
        "tie_word_embeddings": draw.flag(0.6),
        **draw.activation("dense_act_fn"),
        "pad_token_id": 0,
        "eos_token_id": 2,
        "decoder_start_token_id": draw.of(0, draw.size(1, 60)),
    }


def build(config: Any) -> transformers.PreTrainedModel:
    """The model of a RandomConfig: rounded to its dtype, then in single precision."""
    made = transformers.AutoConfig.for_model(config.family, **json.loads(json.dumps(config.fields)))
    torch.manual_seed(config.seed)
    kind = transformers.SwitchTransformersForConditionalGeneration
    model = kind._from_config(made, attn_implementation="eager")
    with torch.no_grad():
        for name, values in model.named_parameters():
            _fill(name, values, made.d_kv)
            values.copy_(values.to(getattr(torch, config.dtype)))
    return model.float().eval()


def _fill(name: str, values: torch.Tensor, head_dim: int) -> None:
    if "norm" in name:
        values.uniform_(0.5, 1.5)
    elif "relative_attention_bias" in name or "shared" in name or "embed" in name:
        values.normal_(0, 1)
    elif values.ndim == 1:
        values.normal_(0, 0.3)
    else:  # scores are not divided by the root of a head's dimension
        values.normal_(
            0, 0.6 * values.shape[-1] ** -0.5 * (head_dim**-0.5 if name.endswith(".q.weight") else 1)
        )


@torch.no_grad()
def reference(
    model: transformers.PreTrainedModel, prompt: np.ndarray, answer: np.ndarray
) -> list[np.ndarray]:
    """States of the prompt, and logits of single steps: a pass over all would drop tokens of full experts."""
    states = model.encoder(input_ids=torch.tensor(prompt[None].astype(np.int64)))
    past, rows = None, []
    for token in answer:
        tokens = torch.tensor([[int(token)]])
        out = model(encoder_outputs=states, decoder_input_ids=tokens, past_key_values=past, use_cache=True)
        past = out.past_key_values
        rows.append(out.logits[0, 0].double().numpy())
    return [states.last_hidden_state[0].double().numpy(), np.stack(rows)]


def texts(config: Any) -> tuple[np.ndarray, np.ndarray]:
    """A prompt, and an answer that begins as generating would."""
    rng, fields = np.random.default_rng(config.seed), config.fields
    drawn = rng.integers(3, fields["vocab_size"], (2, config.length)).astype(np.int32)
    drawn[1, 0] = fields["decoder_start_token_id"]
    return drawn[0], drawn[1, : config.length // 2]


def ours(
    folder: Path, model: transformers.PreTrainedModel, config: Any
) -> tuple[ModelSpec, list[np.ndarray]]:
    """The model as it is read, written into a folder; what ``reference`` gives, and the logits of steps."""
    copy.deepcopy(model).to(getattr(torch, config.dtype)).save_pretrained(folder)
    write_tokenizer(folder)
    source = open_checkpoint(folder)
    spec, weights, experts = resident_parts(source)
    source.close()
    encoder, decoder = Encoder(spec, weights, experts), Decoder(spec, weights, experts)
    prompt, answer = texts(config)
    states = encoder.forward(prompt)
    found = [states[:, : spec.hidden_size]]
    for sizes in ([len(answer)], [1] * len(answer)):
        cache = spec.new_state(len(prompt), "f32")  # which keeps what the encoder made, too
        decoder.begin(states, cache)
        hidden = [decoder.forward(chunk, cache) for chunk in np.split(answer, np.cumsum(sizes)[:-1])]
        found.append(decoder.head(np.concatenate(hidden)))
    return spec, found
