"""Tokenizers of the kinds of vocabulary that GGUF files hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgemoe.checkpoint.gguf.splitting import Splitting, find_splitting, names
from edgemoe.checkpoint.gguf.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Vocabulary

_SPACE = "▁"
# Ways to split that are none: merges go over the whole text, of characters and not of bytes.
_OF_CHARACTERS = ("gemma4", "sarvam-moe", "granite-embed-multi-311m")
# Of models whose special tokens strip what is behind them, those that do not.
_STRIP_NOTHING = ("<unk>", "<s>", "<|endoftext|>")
# Merges that follow from scores: the largest vocabularies of today have 600,000 of 8 characters.
_MAX_MERGE_CHARACTERS = 64 << 20


class BuildError(ValueError):
    """Why no tokenizer can be built, without the name of the file."""


@dataclass(frozen=True)
class Built:
    """A tokenizer, and what had to be guessed."""

    tokenizer: Any
    notes: list[str] = field(default_factory=list)


def _byte_level(metadata: Mapping[str, Any], vocabulary: Vocabulary) -> Built:
    from tokenizers import Tokenizer, decoders, models, normalizers

    name = metadata.get("tokenizer.ggml.pre")
    if name in _OF_CHARACTERS:
        return _characters(metadata, vocabulary)
    found = find_splitting(None if not name else str(name), str(metadata.get("general.architecture")))
    if found is None:
        raise BuildError(f"splits text the way of {name!r}, which is not known ({', '.join(names())} are)")
    splitting, note = found
    model = models.BPE(
        _by_text(vocabulary), _merges(metadata, vocabulary), ignore_merges=splitting.ignores_merges
    )
    tokenizer = Tokenizer(model)
    if splitting.is_composed:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = splitter(splitting)
    tokenizer.decoder = decoders.ByteLevel()
    return _finished(tokenizer, metadata, vocabulary, splitting.adds_bos, [note] if note else [])


def splitter(splitting: Splitting) -> Any:
    """What parts a text into words by such a rule, and each word into its bytes."""
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in splitting.patterns),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _sentence_piece(metadata: Mapping[str, Any], vocabulary: Vocabulary) -> Built:
    if not vocabulary.scores:
        raise BuildError("has a SentencePiece vocabulary without scores")
    has_prefix = _flag(metadata, "add_space_prefix", True)
    tokenizer = _of_characters(vocabulary, _merges_of_scores(vocabulary), has_prefix)
    return _finished(tokenizer, metadata, vocabulary, True, [])


def _characters(metadata: Mapping[str, Any], vocabulary: Vocabulary) -> Built:
    tokenizer = _of_characters(vocabulary, _merges(metadata, vocabulary), False)
    if metadata.get("tokenizer.ggml.pre") != "sarvam-moe":
        # llama.cpp begins every text of this kind with its token, even where the file says otherwise.
        metadata = {**metadata, "tokenizer.ggml.add_bos_token": True}
    return _finished(tokenizer, metadata, vocabulary, False, [])


def _unigram(metadata: Mapping[str, Any], vocabulary: Vocabulary) -> Built:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    if not vocabulary.scores:
        raise BuildError("has a Unigram vocabulary without scores")
    pieces = list(zip(vocabulary.tokens, vocabulary.scores, strict=True))
    has_bytes = "<0x00>" in vocabulary.tokens
    tokenizer = Tokenizer(models.Unigram(pieces, vocabulary.ids.get("unknown", 2), has_bytes))
    charsmap = metadata.get("tokenizer.ggml.precompiled_charsmap")
    if charsmap:
        tokenizer.normalizer = normalizers.Precompiled(bytes(value & 0xFF for value in charsmap))
    scheme = "always" if _flag(metadata, "add_space_prefix", True) else "never"
    space = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme=scheme)
    removes = _flag(metadata, "remove_extra_whitespaces", False)
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), space]) if removes else space
    )
    tokenizer.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme=scheme)
    metadata = {"tokenizer.ggml.add_eos_token": True, **metadata}
    return _finished(tokenizer, metadata, vocabulary, False, [])


BUILDERS: dict[str, Callable[[Mapping[str, Any], Vocabulary], Built]] = {
    "gpt2": _byte_level,
    "llama": _sentence_piece,
    "gemma4": _characters,
    "t5": _unigram,
}


def _flag(metadata: Mapping[str, Any], name: str, default: bool) -> bool:
    """True or false; some writers have a number for it."""
    value = metadata.get(f"tokenizer.ggml.{name}", default)
    if value not in (0, 1):
        raise BuildError(f"tokenizer.ggml.{name} is {value!r:.40}, neither true nor false")
    return bool(value)


def _of_characters(vocabulary: Vocabulary, merges: list[tuple[str, str]], has_prefix: bool) -> Any:
    """BPE on characters; what the vocabulary lacks is spelled in bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    tokenizer = Tokenizer(
        models.BPE(
            _by_text(vocabulary),
            merges,
            unk_token=vocabulary.text("unknown"),
            fuse_unk=True,
            byte_fallback=BYTE in vocabulary.kinds or "<0x00>" in vocabulary.tokens,
        )
    )
    prefix = [normalizers.Prepend(_SPACE)] if has_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", _SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if has_prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


def _by_text(vocabulary: Vocabulary) -> dict[str, int]:
    return {token: i for i, token in enumerate(vocabulary.tokens)}


def _merges(metadata: Mapping[str, Any], vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Merges as pairs; every part and every whole is a token."""
    merges = metadata.get("tokenizer.ggml.merges")
    tokens = set(vocabulary.tokens)
    if merges is None:
        kinds = zip(vocabulary.tokens, vocabulary.kinds, strict=True)
        if any(kind == NORMAL and len(token) > 1 for token, kind in kinds):
            raise BuildError("has tokens of several characters and no merges that make them")
        return []
    if not isinstance(merges, list) or not all(isinstance(merge, str) for merge in merges):
        raise BuildError("its merges are no list of texts")
    pairs = []
    for merge in merges:
        # The first character may be a space itself.
        cut = merge.find(" ", 1)
        left, right = merge[:cut], merge[cut + 1 :]
        if cut < 0 or not {left, right, left + right} <= tokens:
            raise BuildError(f"the merge {merge!r:.60} needs tokens that its vocabulary lacks")
        pairs.append((left, right))
    return pairs


def _merges_of_scores(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """All pairs of tokens that make a token, the token of the highest score first."""
    ids = _by_text(vocabulary)
    found, num_characters = [], 0
    for token, token_id in ids.items():
        if vocabulary.kinds[token_id] in (CONTROL, UNKNOWN, BYTE):
            continue
        for cut in range(1, len(token)):
            left, right = ids.get(token[:cut]), ids.get(token[cut:])
            if left is None or right is None:
                continue
            num_characters += len(token)
            if num_characters > _MAX_MERGE_CHARACTERS:
                raise BuildError("its vocabulary has more pairs of tokens that make tokens than any model's")
            # Among the pairs of one token the parts learnt first come first, as when it was learnt.
            found.append((-vocabulary.scores[token_id], left, right))
    tokens = vocabulary.tokens
    return [(tokens[left], tokens[right]) for _, left, right in sorted(found)]


def _strips_after(metadata: Mapping[str, Any]) -> bool:
    """Whether special tokens take the spaces behind them along: files do not say it of a token.

    llama.cpp knows models of this kind by their name; all of the architecture are.
    """
    name = str(metadata.get("general.name", "")).lower()
    return metadata.get("general.architecture") == "phimoe" or "phi-3" in name or "phi3" in name


def _finished(
    tokenizer: Any, metadata: Mapping[str, Any], vocabulary: Vocabulary, adds_bos: bool, notes: list[str]
) -> Built:
    """Special tokens, and those that stand around every text."""
    from tokenizers import AddedToken
    from tokenizers.processors import TemplateProcessing

    strips = _strips_after(metadata)
    for wanted in ((CONTROL, UNKNOWN), (USER_DEFINED,)):
        added = [
            AddedToken(
                token,
                special=USER_DEFINED not in wanted,
                normalized=False,
                rstrip=strips and token not in _STRIP_NOTHING,
            )
            for token, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True)
            if kind in wanted
        ]
        tokenizer.add_tokens(added)
    around = {}
    for role, is_usual in (("bos", adds_bos), ("eos", False)):
        if not _flag(metadata, f"add_{role}_token", is_usual):
            continue
        text = vocabulary.text(role)
        if text is None:
            notes = [*notes, f"a text should have its {role} token around it, and the file names none"]
        else:
            around[role] = text
    if around:
        before, after = around.get("bos"), around.get("eos")
        one, other = ([f"{t}:{i}" for t in (before, "$A" if i == 0 else "$B", after) if t] for i in (0, 1))
        tokenizer.post_processor = TemplateProcessing(
            single=one,
            pair=[*one, *other],
            special_tokens=[(t, vocabulary.ids[r]) for r, t in around.items()],
        )
    return Built(tokenizer, notes)
