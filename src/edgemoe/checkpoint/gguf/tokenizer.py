"""GGUF metadata → tokenizer.json, tokenizer_config.json, chat template and generation settings.

Kinds of vocabulary: byte-level BPE with merges ("gpt2"), whose way of splitting text into words the file only
names; SentencePiece BPE ("llama"), whose merges follow from the scores; BPE on characters ("gemma4"); and
Unigram ("t5"). A tokenizer.json beside the file is preferred, once its vocabulary is seen to be the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgemoe.checkpoint.gguf.build_tokenizer import BUILDERS, BuildError, Built
from edgemoe.checkpoint.gguf.vocabulary import UNUSED, Vocabulary, read_vocabulary
from edgemoe.errors import CheckpointError

_BESIDE = "put the model's tokenizer.json beside it"
_SETTING_NAMES = {"unknown": "unk", "padding": "pad", "seperator": "sep"}
TEMPLATE = "tokenizer.chat_template"
# Advice for sampling, from the file's names to those of generation_config.json.
SAMPLING = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}


class GgufText:
    """What a GGUF file says of text; built once, when it is first asked for."""

    def __init__(self, metadata: Mapping[str, Any], path: Path) -> None:
        self._metadata, self._path = metadata, path
        self._files: dict[str, bytes] | None = None
        self._notes: list[str] = []

    def files(self) -> Mapping[str, bytes]:
        """The files by name; empty where the GGUF file has no vocabulary.

        Raises:
            CheckpointError: the vocabulary is damaged or of a kind that is not known, or the tokenizer.json
                beside the file is another model's.
        """
        if self._files is None:
            self._files = self._build()
        return dict(self._files)

    def notes(self) -> Sequence[str]:
        """What had to be guessed, in words for people."""
        self.files()
        return tuple(self._notes)

    def _build(self) -> dict[str, bytes]:
        kind = self._metadata.get("tokenizer.ggml.model")
        if kind is None or kind in ("none", "no_vocab"):
            return {}
        vocabulary = read_vocabulary(self._metadata, self._path)
        files = {"tokenizer.json": self._tokenizer(str(kind), vocabulary)}
        settings = _settings(vocabulary)
        templates = _templates(self._metadata)
        named = sorted({value.strip() for value in templates.values() if _is_name(value)})
        if named:
            templates = {name: value for name, value in templates.items() if not _is_name(value)}
            self._notes.append(
                f"the file's chat template is {', '.join(map(repr, named))}, a name that other programs know,"
                " and is not used; put the template itself into the store, as chat_template.jinja"
            )
        if set(templates) == {"default"}:
            files["chat_template.jinja"] = templates["default"].encode()
        elif templates:
            settings["chat_template"] = [{"name": n, "template": t} for n, t in templates.items()]
        files["tokenizer_config.json"] = _json_bytes(settings)
        self._notes += _unfollowed(self._metadata)
        generation = _generation(self._metadata, vocabulary)
        if generation:
            files["generation_config.json"] = _json_bytes(generation)
        return files

    def _tokenizer(self, kind: str, vocabulary: Vocabulary) -> bytes:
        beside = self._path.with_name("tokenizer.json")
        if beside.is_file():
            _check_same(beside, vocabulary.tokens)
            return beside.read_bytes()
        if kind not in BUILDERS:
            raise CheckpointError(f"{self._path}: vocabularies of kind {kind!r} are not known; {_BESIDE}")
        try:
            built: Built = BUILDERS[kind](self._metadata, vocabulary)
        except BuildError as error:
            raise CheckpointError(f"{self._path}: {error}; {_BESIDE}") from None
        except Exception as error:  # the library raises bare Exception
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{self._path}: its vocabulary is damaged: {reason}; {_BESIDE}") from error
        self._notes += built.notes
        return str(built.tokenizer.to_str()).encode()


def _settings(vocabulary: Vocabulary) -> dict[str, Any]:
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for role in ("bos", "eos", "unknown", "padding", "seperator", "mask"):
        text = vocabulary.text(role)
        if text is not None:
            settings[f"{_SETTING_NAMES.get(role, role)}_token"] = text
    unused = [token_id for token_id, kind in enumerate(vocabulary.kinds) if kind == UNUSED]
    return settings | ({"unused_token_ids": unused} if unused else {})  # a key of our own


def _templates(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Chat templates by name: the usual one, and those that stand under names of their own."""
    found = {}
    for key, value in metadata.items():
        name = key.removeprefix(TEMPLATE).removeprefix(".") or "default"
        # Some writers leave the text empty where there is no template.
        if (key == TEMPLATE or key.startswith(TEMPLATE + ".")) and isinstance(value, str) and value.strip():
            found[name] = value
    return found


def _is_name(template: str) -> bool:
    """Whether a template says nothing but what it is called: it writes nothing of a conversation."""
    return "{" not in template


def _generation(metadata: Mapping[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    ends = vocabulary.end_ids()
    if ends:
        settings["eos_token_id"] = ends
    for name, ours in SAMPLING.items():
        value = metadata.get(f"general.sampling.{name}")
        if isinstance(value, int | float) and not isinstance(value, bool):
            settings[ours] = value
            settings["do_sample"] = True
    suppressed = metadata.get("tokenizer.ggml.suppress_tokens")
    if suppressed:
        settings["suppress_tokens"] = suppressed
    return settings


def _unfollowed(metadata: Mapping[str, Any]) -> list[str]:
    """Advice for sampling in ways that are not ours."""
    keys = [
        f"general.sampling.{name}"
        for name in ("mirostat", "xtc_probability")
        if metadata.get(f"general.sampling.{name}")
    ]
    return [f"{' and '.join(keys)} of the file: not followed, EdgeMoE does not sample so"] if keys else []


def _json_bytes(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode()


def _check_same(path: Path, tokens: list[str]) -> None:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(f"{path}: not a tokenizer: {error}") from error
    for text, token_id in tokenizer.get_vocab(with_added_tokens=True).items():
        if token_id >= len(tokens) or tokens[token_id] != text:
            other = repr(tokens[token_id]) if token_id < len(tokens) else "not there"
            raise CheckpointError(
                f"{path}: is another model's: token {token_id} is {text!r}, in the GGUF file {other};"
                " take it away or put the right one there"
            )
