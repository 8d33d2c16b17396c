"""GGUF metadata → tokenizer.json, tokenizer_config.json, chat template and generation settings.

Two kinds of vocabulary occur in the families we run: byte-level BPE with merges ("gpt2"), whose way of
splitting text into words the file only names, and SentencePiece BPE ("llama"), whose merges follow from the
scores. A tokenizer.json beside the file is preferred, once its vocabulary is seen to be the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgemoe.errors import CheckpointError

_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Name of the way to split → pattern of a word (None: that of GPT-2), whether text is first composed (NFC).
_WORDS: dict[str, tuple[str | None, bool]] = {
    "gpt-2": (None, False),
    "default": (None, False),
    "olmo": (None, True),
    "qwen2": (_QWEN2_WORDS, True),
    "llama-bpe": (_LLAMA3_WORDS, False),
    "dbrx": (_LLAMA3_WORDS, False),
}
# llama.cpp's kinds of token.
_CONTROL, _USER_DEFINED = 3, 4
_ROLES = ("bos", "eos", "unknown", "padding")
_SPACE = "▁"


def tokenizer_files(metadata: Mapping[str, Any], path: Path) -> dict[str, bytes]:
    """The files by name; empty where the GGUF file has no vocabulary.

    Raises:
        CheckpointError: the vocabulary is of a kind that is not known, or the tokenizer.json beside the file
            is another model's.
    """
    kind = metadata.get("tokenizer.ggml.model")
    if kind is None or kind in ("none", "no_vocab"):
        return {}
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    settings = _settings(metadata, tokens)
    files = {"tokenizer_config.json": _json_bytes(settings)}
    beside = path.with_name("tokenizer.json")
    if beside.is_file():
        _check_same(beside, tokens)
        files["tokenizer.json"] = beside.read_bytes()
    elif kind == "gpt2":
        files["tokenizer.json"] = _byte_level(metadata, tokens, path)
    elif kind == "llama":
        files["tokenizer.json"] = _sentence_piece(metadata, tokens)
    else:
        raise CheckpointError(
            f"{path}: vocabularies of kind {kind!r} are not known; put the model's tokenizer.json beside it"
        )
    if "tokenizer.chat_template" in metadata:
        files["chat_template.jinja"] = str(metadata["tokenizer.chat_template"]).encode()
    stops = [metadata[key] for key in _stop_keys() if isinstance(metadata.get(key), int)]
    if stops:
        files["generation_config.json"] = _json_bytes({"eos_token_id": sorted({int(i) for i in stops})})
    return files


def _stop_keys() -> tuple[str, ...]:
    return tuple(f"tokenizer.ggml.{role}_token_id" for role in ("eos", "eot", "eom"))


def _json_bytes(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode()


def _settings(metadata: Mapping[str, Any], tokens: list[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for role in _ROLES:
        token_id = metadata.get(f"tokenizer.ggml.{role}_token_id")
        if isinstance(token_id, int) and token_id < len(tokens):
            short = {"unknown": "unk", "padding": "pad"}.get(role, role)
            settings[f"{short}_token"] = tokens[token_id]
    return settings


def _byte_level(metadata: Mapping[str, Any], tokens: list[str], path: Path) -> bytes:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    name = str(metadata.get("tokenizer.ggml.pre", "default"))
    if name not in _WORDS:
        raise CheckpointError(
            f"{path}: splits text the way of {name!r}, which is not known ({', '.join(_WORDS)} are);"
            " put the model's tokenizer.json beside it"
        )
    pattern, is_composed = _WORDS[name]
    merges = [tuple(merge.split(" ", 1)) for merge in metadata.get("tokenizer.ggml.merges", [])]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    if is_composed:
        tokenizer.normalizer = normalizers.NFC()
    bytes_of_words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    tokenizer.pre_tokenizer = (
        bytes_of_words
        if pattern is None
        else pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), bytes_of_words])
    )
    tokenizer.decoder = decoders.ByteLevel()
    return _finished(tokenizer, metadata, tokens, adds_bos=False)


def _sentence_piece(metadata: Mapping[str, Any], tokens: list[str]) -> bytes:
    from tokenizers import Tokenizer, decoders, models, normalizers

    unknown = metadata.get("tokenizer.ggml.unknown_token_id", 0)
    vocabulary = {token: i for i, token in enumerate(tokens)}
    model = models.BPE(
        vocabulary,
        _merges_of_scores(vocabulary, metadata["tokenizer.ggml.scores"]),
        unk_token=tokens[unknown],
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    has_prefix = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    prefix = [normalizers.Prepend(_SPACE)] if has_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", _SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if has_prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return _finished(tokenizer, metadata, tokens, adds_bos=True)


def _merges_of_scores(vocabulary: Mapping[str, int], scores: list[float]) -> list[tuple[str, str]]:
    """All pairs of tokens that make a token, the token of the highest score first."""
    found = []
    for token, token_id in vocabulary.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in vocabulary and right in vocabulary:
                # Among the pairs of one token the parts learnt first come first, as when it was learnt.
                found.append((-scores[token_id], vocabulary[left], vocabulary[right], left, right))
    return [(left, right) for *_, left, right in sorted(found)]


def _finished(tokenizer: Any, metadata: Mapping[str, Any], tokens: list[str], *, adds_bos: bool) -> bytes:
    """Special tokens, and those that stand around every text."""
    from tokenizers import AddedToken
    from tokenizers.processors import TemplateProcessing

    kinds = metadata.get("tokenizer.ggml.token_type", [])
    for kind in (_CONTROL, _USER_DEFINED):
        added = [
            AddedToken(token, special=kind == _CONTROL, normalized=False)
            for token, own in zip(tokens, kinds, strict=False)
            if own == kind
        ]
        tokenizer.add_tokens(added)
    first = metadata.get("tokenizer.ggml.bos_token_id")
    if metadata.get("tokenizer.ggml.add_bos_token", adds_bos) and isinstance(first, int):
        bos = tokens[first]
        tokenizer.post_processor = TemplateProcessing(
            single=f"{bos}:0 $A:0", pair=f"{bos}:0 $A:0 {bos}:1 $B:1", special_tokens=[(bos, first)]
        )
    return str(tokenizer.to_str()).encode()


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
