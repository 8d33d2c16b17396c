"""Examines a checkpoint before any work: its spec, where its tensors lie, what to tell the user."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgemoe.checkpoint import CheckpointSource, FolderCheckpoint, GgufCheckpoint, TensorInfo
from edgemoe.checkpoint.stand_ins import parse_json, stand_in
from edgemoe.engine.defaults import checked_defaults
from edgemoe.errors import CheckpointError, RequestError, StoreError
from edgemoe.models import ModelSpec, TensorSources, find_sources, read_spec, stored_head
from edgemoe.models.config_keys import NEUTRAL
from edgemoe.text import try_text_files

TOKENIZER = "tokenizer.json"
_GENERATION = "generation_config.json"
# Sampling settings of config.json at which nothing is said.
_SAMPLING = {
    "do_sample": False, "temperature": 1, "top_k": 50, "top_p": 1, "min_p": 0, "repetition_penalty": 1,
}  # fmt: skip
# Settings of answers that are not followed; at the values of NEUTRAL they ask for nothing.
_UNHEEDED = frozenset(
    ("bad_words_ids", "force_words_ids", "forced_bos_token_id",
     "forced_eos_token_id", "no_repeat_ngram_size", "min_length", "min_new_tokens", "num_beams", "typical_p",
     "sequence_bias", "penalty_alpha", "guidance_scale", "epsilon_cutoff", "eta_cutoff", "stop_strings",
     "encoder_no_repeat_ngram_size", "encoder_repetition_penalty", "exponential_decay_length_penalty")
)  # fmt: skip
# Rows of embedding and head that are compared at a time.
_ROWS = 4096


@dataclass(frozen=True)
class Examined:
    """A checkpoint that can be run. ``config`` is as the store has it; ``notes`` are lines for people."""

    config: Mapping[str, Any]
    spec: ModelSpec
    stored: Mapping[str, TensorInfo]
    sources: TensorSources
    notes: tuple[str, ...]


def examine(source: CheckpointSource) -> Examined:
    """Read a checkpoint's configuration, match its tensors, and try one of every type of values.

    Raises:
        CheckpointError: it is not one we can run.
    """
    config, stored = source.config(), source.tensors()
    shapes = {name: info.shape for name, info in stored.items()}
    notes = list(source.notes()) if isinstance(source, FolderCheckpoint) else []
    if _has_other_head(source, read_spec(config), stored):
        notes.append("the head differs from the embedding, though config.json ties them: the head is used")
        config = {**config, "tie_word_embeddings": False}
    spec = read_spec(config)
    sources = find_sources(spec, shapes)
    notes += [f"{count} tensors of {what} are not run" for what, count in sources.passed_over.items()]
    _try_types(source, stored, sources)
    return Examined(config, spec, stored, sources, tuple(notes))


def side_files(source: CheckpointSource, config: Mapping[str, Any]) -> dict[str, bytes]:
    """The files that the store has beside the weights, by name.

    Raises:
        CheckpointError: one of them is not what its name says.
    """
    files = dict(source.files())
    for name, data in files.items():
        _check_side_file(name, data)
    if _GENERATION not in files:
        # As transformers does where there is no such file.
        settings = {key: config[key] for key in _SAMPLING if config.get(key) is not None}
        if any(value != _SAMPLING[key] for key, value in settings.items()):
            files[_GENERATION] = json.dumps(settings).encode()
    _check_sampling(files)
    files["config.json"] = json.dumps(config, indent=2).encode()
    return files


def text_notes(
    source: CheckpointSource, files: Mapping[str, bytes], config: Mapping[str, Any], vocab_size: int
) -> tuple[str, ...]:
    """What to say of the tokenizer: that there is none, what was guessed, that the chat template fails.

    ``vocab_size``: token ids that the model has embeddings of.

    Raises:
        CheckpointError: a store with these files would not be loaded.
    """
    unheeded = _unheeded(files)
    if TOKENIZER in files:
        guessed = source.notes() if isinstance(source, GgufCheckpoint) else ()
        try:
            return (*unheeded, *guessed, *try_text_files(files, config, vocab_size))
        except StoreError as error:
            raise CheckpointError(f"tokenizer files cannot be used: {error}") from error
    return (
        *unheeded,
        f"there is no {TOKENIZER}: the store will take token ids, not text; to have one, load the folder's"
        " tokenizer with transformers' AutoTokenizer, save it there and convert again",
    )


def _unheeded(files: Mapping[str, bytes]) -> tuple[str, ...]:
    """What generation_config.json asks for beyond drawing tokens, and only transformers does."""
    settings = json.loads(files.get(_GENERATION, b"{}").decode("utf-8-sig"))
    asked = sorted(
        key
        for key, value in settings.items()
        if key in _UNHEEDED and value is not None and value not in NEUTRAL.get(key, ([], "", 0))
    )
    return (f"{_GENERATION}: {', '.join(asked)}: not followed when it answers",) if asked else ()


def _check_sampling(files: Mapping[str, bytes]) -> None:
    """A store with such values would not be loaded; that is said before the work."""
    try:
        checked_defaults(json.loads(files.get(_GENERATION, b"{}").decode("utf-8-sig")))
    except RequestError as error:
        raise CheckpointError(f"{_GENERATION}: {error}; correct it, or leave it out") from None


def _has_other_head(source: CheckpointSource, spec: ModelSpec, stored: Mapping[str, TensorInfo]) -> bool:
    """Whether a head is stored that is not the embedding, though the configuration ties them."""
    head = stored_head(spec, stored) if spec.has_tied_head else None
    if head is None:
        return False
    shapes = {name: info.shape for name, info in stored.items()}
    embedding = find_sources(spec, shapes).dense["embed.weight"]
    if shapes[head.name] == (spec.vocab_size, spec.hidden_size) and all(
        np.array_equal(
            source.read(head.slice_rows(start, stop)),
            source.read(embedding.slice_rows(start, stop))[:, : spec.hidden_size],
        )
        for start, stop in _spans(spec.vocab_size)
    ):
        return False
    if spec.has_encoder:
        raise CheckpointError(f"tensor {head.name} differs from the embedding, though config.json ties them")
    return True


def _spans(count: int) -> list[tuple[int, int]]:
    return [(start, min(start + _ROWS, count)) for start in range(0, count, _ROWS)]


def _try_types(source: CheckpointSource, stored: Mapping[str, TensorInfo], sources: TensorSources) -> None:
    """Read a row of one tensor of every type, so that types that cannot be read are found before the work."""
    one_of = {stored[ref.name].dtype: ref for ref in (*sources.dense.values(), *sources.experts.values())}
    for ref in one_of.values():
        source.read(ref.slice_rows(0, 1))


def _check_side_file(name: str, data: bytes) -> None:
    if name.endswith(".json"):
        parse_json(data, name)
    else:
        other = stand_in(data)
        if other:
            raise CheckpointError(f"{name}: {other}")
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{name}: is not UTF-8 (byte {error.start}); fetch it again") from None
    if name == TOKENIZER:
        _check_tokenizer(data)


def _check_tokenizer(data: bytes) -> None:
    import tokenizers

    try:
        tokenizers.Tokenizer.from_str(data.decode("utf-8-sig"))
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:  # the library raises bare Exception, and panics that are not even that
        raise CheckpointError(f"{TOKENIZER}: is no tokenizer: {error}; fetch it again") from error
