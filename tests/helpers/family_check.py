"""One random configuration against transformers: the same logits, or a refusal that names the key.

Weights are about 0.6 over the root of their inputs: beyond that two orders of summation differ by more than
the bound, below it routers, norms and gates would not matter.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from edgemoe.checkpoint import open_checkpoint
from edgemoe.errors import UnsupportedModelError
from edgemoe.models import Decoder, ModelSpec, Segment, read_spec
from helpers import random_switch
from helpers.random_configs import RandomConfig
from helpers.resident import load_resident
from helpers.tiny_models import write_tokenizer
from helpers.tolerances import F32_RELATIVE, relative

# Of every weight: a model that this changes says nothing, as one of two experts that nearly tie is chosen.
_ROUNDING = 5e-7
_NUM_ROUNDINGS = 6
_LESS_ONE = ("qwen3_next", "qwen3_5_moe", "qwen3_5_moe_text")  # whose norms are stored less one
_WEIGHT = 0.6
_BUFFERS = ("layer_scalar", "correction_bias", "expert_bias")  # that checkpoints have


@dataclass(frozen=True)
class Outcome:
    """``kind``: same, refused, impossible (to transformers), noisy, or fault; ``what``: why."""

    kind: str
    what: str = ""


def check(config: RandomConfig, folder: Path) -> Outcome:
    """Write the model into an empty folder and compare."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two pools of threads would wait for each other's cores
    try:
        return _check(config, folder)
    finally:
        torch.set_num_threads(num_threads)


def _check(config: RandomConfig, folder: Path) -> Outcome:
    if config.family == random_switch.FAMILY:
        return _check_switch(config, folder)
    try:
        model = build(config)
        texts = _texts(config, model.config.get_text_config().vocab_size)
        # Each with a copy: what one text did to angles that grow would remain.
        expected = [reference(copy.deepcopy(model), text) for text in texts]
    except Exception as error:  # whatever transformers says of what it does not take
        return Outcome("impossible", f"{type(error).__name__}: {error}")
    copy.deepcopy(model).to(getattr(torch, config.dtype)).save_pretrained(folder)
    write_tokenizer(folder)
    try:
        source = open_checkpoint(folder)
        spec, decoder = load_resident(source)
        source.close()
    except UnsupportedModelError as error:
        return _refusal(config, str(error))
    except Exception as error:
        return Outcome("fault", f"{type(error).__name__}: {error}")
    what = _other_spelling(config, folder, spec) or _compare(spec, decoder, texts, expected)
    if what is None:
        return Outcome("same")
    return Outcome("noisy" if _is_noisy(model, texts) else "fault", what)


def _check_switch(config: RandomConfig, folder: Path) -> Outcome:
    """An encoder and a decoder."""
    try:
        model = random_switch.build(config)
        expected = random_switch.reference(model, *random_switch.texts(config))
    except Exception as error:  # whatever transformers says of what it does not take
        return Outcome("impossible", f"{type(error).__name__}: {error}")
    try:
        spec, (states, whole, stepped) = random_switch.ours(folder, model, config)
    except UnsupportedModelError as error:
        return _refusal(config, str(error))
    except Exception as error:
        return Outcome("fault", f"{type(error).__name__}: {error}")
    if not np.array_equal(whole, stepped):
        return Outcome("fault", "in single steps it has other bits")
    errors = [relative(found, exact) for found, exact in zip((states, whole), expected, strict=True)]
    if max(errors) < F32_RELATIVE:
        what = _other_spelling(config, folder, spec)
        return Outcome("same") if what is None else Outcome("fault", what)
    return Outcome("fault", f"states differ by {errors[0]:.1e}, logits by {errors[1]:.1e}")


def build(config: RandomConfig) -> transformers.PreTrainedModel:
    """The model of a configuration: rounded to its dtype, then in single precision."""
    made = transformers.AutoConfig.for_model(config.family, **json.loads(json.dumps(config.fields)))
    has_text_config = getattr(made, "text_config", None) is not None
    kind = transformers.AutoModelForImageTextToText if has_text_config else transformers.AutoModelForCausalLM
    torch.manual_seed(config.seed)
    model = kind.from_config(made, attn_implementation="eager", experts_implementation="eager")
    with torch.no_grad():
        stored = [(name, values) for name, values in model.named_buffers() if name.endswith(_BUFFERS)]
        for name, values in (*model.named_parameters(), *stored):
            if "visual" not in name:
                _fill(config.family, name, values)
                values.copy_(values.to(getattr(torch, config.dtype)))
    return model.float().eval()


def _fill(family: str, name: str, values: torch.Tensor) -> None:
    end = name.rsplit(".", 1)[-1]
    if family == "gemma4_text" and name.endswith("q_norm.weight"):
        values.uniform_(0.1, 0.3)  # the family has no other factor of the scores
    elif "norm" in name and end == "weight":
        is_less = family in _LESS_ONE and "linear_attn" not in name
        values.uniform_(-0.5, 0.5) if is_less else values.uniform_(0.5, 1.5)
    elif end in ("layer_scalar", "per_expert_scale", "scale", "D"):
        values.uniform_(0.5, 1.5)
    elif end in ("A_log", "dt_bias"):
        values.normal_(-1, 1)
    elif end in ("sinks", "attention_sink_bias"):
        values.normal_(0, 1)
    elif "bias" in end:
        values.normal_(0, 0.3)  # of routers enough to change many choices
    elif "embed" in name or name.endswith("router.proj.weight"):  # which Gemma divides by the width's root
        values.normal_(0, 1)
    elif values.is_floating_point() and values.ndim > 1:
        num_inputs = values.shape[-2] if family == "gpt_oss" and values.ndim == 3 else values.shape[-1]
        values.normal_(0, _WEIGHT * num_inputs**-0.5)
    elif values.is_floating_point():
        raise AssertionError(f"{name} is not known")


def reference(model: transformers.PreTrainedModel, text: np.ndarray) -> np.ndarray:
    """Logits (T, V); step by step where angles depend on how long a text has become."""
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    grows = rope.get("rope_type") == "dynamic" and len(text) > config.max_position_embeddings
    past, rows = None, []
    with torch.no_grad():
        for chunk in np.split(text, len(text)) if grows else [text]:
            tokens = torch.tensor(chunk[None].astype(np.int64))
            out = (
                model(tokens, past_key_values=past, use_cache=True)
                if grows
                else model(tokens, use_cache=False)
            )
            past = out.get("past_key_values") if grows else None
            rows.append(out.logits[0].double().numpy())
    return np.concatenate(rows)


def _is_noisy(model: transformers.PreTrainedModel, texts: list[np.ndarray]) -> bool:
    """Whether weights that are rounded otherwise give other logits, in double precision."""
    exact = [reference(copy.deepcopy(model).double(), text) for text in texts]
    for _ in range(_NUM_ROUNDINGS):
        rounded = copy.deepcopy(model).double()
        with torch.no_grad():
            for values in rounded.parameters():
                values.mul_(1 + _ROUNDING * torch.randn_like(values))
        for text, logits in zip(texts, exact, strict=True):
            if relative(reference(copy.deepcopy(rounded), text), logits) > F32_RELATIVE / 3:
                return True
    return False


def _texts(config: RandomConfig, vocab_size: int) -> list[np.ndarray]:
    """Two texts; the second is shorter."""
    rng = np.random.default_rng(config.seed)
    lengths = (config.length, config.length - 7)
    return [rng.integers(0, vocab_size, length).astype(np.int32) for length in lengths]


def _refusal(config: RandomConfig, message: str) -> Outcome:
    is_line = message.isprintable() and any(key in message for key in config.unsupported)
    return Outcome("refused" if is_line else "fault", message)


def _other_spelling(config: RandomConfig, folder: Path, spec: ModelSpec) -> str | None:
    """What is read of the configuration as drawn, with rotation in the words of older files, and with names
    that the class of transformers takes for others.
    """
    saved = json.loads((folder / "config.json").read_text())
    drawn = {"model_type": config.family, **json.loads(json.dumps(config.fields))}
    for name, given in (
        ("as drawn", drawn),
        ("as of old", _old_rope(saved)),
        ("drawn of old", _old_rope(drawn)),
        *((f"with {key} as {other}", given) for key, other, given in _renamed(config.family, drawn)),
    ):
        try:
            if read_spec(given) != spec:
                return f"{name} it is read as another model"
        except Exception as error:
            return f"{name}: {type(error).__name__}: {error}"
    return None


def _renamed(family: str, drawn: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """One key after the other under its other name, where that is the same configuration to transformers."""
    fields = {key: value for key, value in drawn.items() if key != "model_type"}
    kind = type(transformers.AutoConfig.for_model(family))
    names = {**kind.attribute_map, **{other: key for key, other in kind.attribute_map.items()}}
    made = kind(**copy.deepcopy(fields)).to_dict()
    for key, other in names.items():
        if key not in fields or other in fields:
            continue
        renamed = {other if name == key else name: value for name, value in fields.items()}
        if kind(**copy.deepcopy(renamed)).to_dict() == made:
            yield key, other, {"model_type": family, **renamed}


def _old_rope(config: dict[str, Any]) -> dict[str, Any]:
    """``rope_theta``, ``rope_scaling`` and the share beside them."""
    rope = config.get("rope_parameters")
    if not rope or "rope_type" not in rope:
        return config
    found = {key: value for key, value in config.items() if key != "rope_parameters"}
    rope = dict(rope)
    for key in ("rope_theta", "partial_rotary_factor"):
        if key in rope:
            found[key] = rope.pop(key)
    rope["type"] = rope.pop("rope_type")
    return {**found, "rope_scaling": rope}


def _compare(
    spec: ModelSpec, decoder: Decoder, texts: list[np.ndarray], expected: list[np.ndarray]
) -> str | None:
    """The first difference, None where there is none."""
    text = texts[0]
    whole = _run(spec, decoder, text, [len(text)])
    if not np.isfinite(whole).all():
        return "logits are not finite"
    error = relative(whole, expected[0])
    if not error < F32_RELATIVE:
        rows = np.linalg.norm(whole - expected[0], axis=1) / np.linalg.norm(expected[0], axis=1)
        return f"logits differ by {error:.1e}, from token {np.argmax(rows > F32_RELATIVE)} of {len(text)} on"
    if not _same_choices(whole, expected[0]):
        return "greedy tokens differ"
    for sizes in ([7, 1, len(text) - 11, 3], [len(text) // 2, len(text) - len(text) // 2], [1] * len(text)):
        if not np.array_equal(_run(spec, decoder, text, sizes), whole):
            return f"cut into {sizes} it has other bits"
    return _compare_batch(spec, decoder, texts, [whole, expected[1]])


def _run(spec: ModelSpec, decoder: Decoder, text: np.ndarray, sizes: list[int]) -> np.ndarray:
    state = spec.new_state(len(text), "f32")
    hidden = [decoder.forward(chunk, state) for chunk in np.split(text, np.cumsum(sizes)[:-1])]
    return decoder.head(np.concatenate(hidden))


def _compare_batch(
    spec: ModelSpec, decoder: Decoder, texts: list[np.ndarray], expected: list[np.ndarray]
) -> str | None:
    """Both texts in each step, in pieces and then token by token."""
    states = [spec.new_state(len(text), "f32") for text in texts]
    hidden: list[list[np.ndarray]] = [[], []]
    for sizes in ((9, 5), (4, 1), *([(1, 1)] * max(map(len, texts)))):
        parts = [text[s.length :][:n] for text, s, n in zip(texts, states, sizes, strict=True)]
        firsts = np.cumsum([0, *map(len, parts)])
        segments = [
            Segment(int(first), len(part), state)
            for first, part, state in zip(firsts, parts, states, strict=False)
            if len(part)
        ]
        if not segments:
            break
        rows = decoder.step(np.concatenate(parts), segments)
        for index, (first, part) in enumerate(zip(firsts, parts, strict=False)):
            hidden[index].append(rows[first : first + len(part)])
    first, second = (decoder.head(np.concatenate(rows)) for rows in hidden)
    if not np.array_equal(first, expected[0]):
        return "in company the first text has other bits"
    error = relative(second, expected[1])
    return None if error < F32_RELATIVE else f"in company the second text differs by {error:.1e}"


def _same_choices(actual: np.ndarray, expected: np.ndarray) -> bool:
    """Whether the likeliest tokens agree, but where two are as likely to the last digits."""
    chosen, best = actual.argmax(1), expected.argmax(1)
    rows = np.arange(len(expected))
    gaps = expected[rows, best] - expected[rows, chosen]
    return bool((gaps <= F32_RELATIVE * np.abs(expected).max()).all())
