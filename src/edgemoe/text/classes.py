"""Tokenizer classes with rules of their own: transformers 5 takes from tokenizer.json the vocabulary alone.

A folder whose tokenizer_config.json names such a class gets the class's way of splitting, normalising and
decoding, and its special tokens, whatever tokenizer.json says of them. All other classes, and folders that
name none, keep their tokenizer.json as it is.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import tokenizers
from tokenizers import models, normalizers

from edgemoe.text import class_rules
from edgemoe.text.added_tokens import SpecialTokens
from edgemoe.text.class_rules import Rules, Settings

# Families whose folders name a class that is not theirs: it is not used.
_WRONGLY_NAMED = frozenset(("ernie4_5_moe", "minimax_m2", "phimoe"))
# Families that never have a class with rules of its own, and those that have one whatever folders name.
_OF_NO_CLASS = _WRONGLY_NAMED | frozenset(
    ("mixtral", "flex_olmo", "glm4_moe", "glm4_moe_lite", "granitemoe", "granitemoehybrid",
     "granitemoeshared", "kimi_linear", "mimo_v2_flash")
)  # fmt: skip
_CLASS_IN_ANY_CASE = {"qwen3_5_moe": "Qwen3_5Tokenizer", "qwen3_5_moe_text": "Qwen3_5Tokenizer"}
_END = "<|endoftext|>"
_MOST_SENTINELS = 10_000
# What tokenizers split in ways that differ: words, spaces, digits, marks, capitals, another writing system.
_ORDINARY = (
    'In 2024 they didn\'t say "no":  1234567 times;\n\n\tÉtat naïf, ÜBER-Größe (x_1 += 3.5) 日本語です。'
)


@dataclass(frozen=True)
class TokenizerClass:
    """``rules`` are set on a tokenizer that has its model alone.

    ``named``: special tokens that it has unless the folder says otherwise. ``model``: attributes of its BPE.
    ``named_again``: special tokens that it adds once more, with other flags than files give them. ``finish``
    is called when all tokens are known.
    """

    rules: Rules
    named: Mapping[str, str]
    model: Mapping[str, Any] = field(default_factory=dict)
    named_again: Callable[[SpecialTokens], Iterator[tokenizers.AddedToken]] | None = None
    finish: Rules | None = None

    def defaults(self, settings: Settings) -> Settings:
        """``settings`` with what the class adds to them."""
        return {**self.named, **settings}

    def rebuild(self, own: tokenizers.Tokenizer, settings: Settings) -> tokenizers.Tokenizer | None:
        """A tokenizer of the vocabulary of ``own``, without added tokens; None: it is of another kind."""
        if not isinstance(own.model, models.BPE):
            return None
        for name, value in {**_PLAIN_BPE, **self.model}.items():
            is_named = name == "unk_token" and value is not None
            setattr(own.model, name, class_rules.text_of(settings.get(value)) if is_named else value)
        return self._ruled(tokenizers.Tokenizer(own.model), own, settings)

    def add_tokens(self, tokenizer: tokenizers.Tokenizer, added: SpecialTokens, settings: Settings) -> None:
        """Tell a tokenizer that ``rebuild`` has made of all added tokens."""
        tokenizer.add_tokens(added.missing_from({}))
        if self.named_again is not None:
            tokenizer.add_special_tokens(list(self.named_again(added)))
        if self.finish is not None:
            self.finish(tokenizer, self.defaults(settings))

    def _ruled(
        self, tokenizer: tokenizers.Tokenizer, own: tokenizers.Tokenizer, settings: Settings
    ) -> tokenizers.Tokenizer:
        if own.post_processor is not None:
            tokenizer.post_processor = own.post_processor
        self.rules(tokenizer, settings)
        return tokenizer


class _Unigram(TokenizerClass):
    """T5's: pieces with scores, and sentinels."""

    def defaults(self, settings: Settings) -> Settings:
        given = {**self.named, **settings}
        if not {"extra_special_tokens", "additional_special_tokens"} & settings.keys():
            count = settings.get("extra_ids", 100)
            if type(count) is not int or not 0 <= count <= _MOST_SENTINELS:
                raise ValueError(f"extra_ids is {count!r:.40}, which is no number of tokens")
            given["extra_special_tokens"] = [f"<extra_id_{i}>" for i in range(count)]
        return given

    def rebuild(self, own: tokenizers.Tokenizer, settings: Settings) -> tokenizers.Tokenizer | None:
        if not isinstance(own.model, models.Unigram):
            return None
        described = json.loads(own.to_str())
        pieces = [(text, score) for text, score in described["model"]["vocab"]]
        tokenizer = tokenizers.Tokenizer(models.Unigram(pieces, 2, False))
        for step in _steps(described.get("normalizer")):
            if step.get("type") == "Precompiled":
                tokenizer.normalizer = normalizers.Precompiled(base64.b64decode(step["precompiled_charsmap"]))
                break
        return self._ruled(tokenizer, own, settings)


@dataclass(frozen=True)
class Loaded:
    """A tokenizer, and the class whose rules it follows where those are not tokenizer.json's.

    ``added``: the added tokens of tokenizer.json by id, which a tokenizer of a class does not know yet.
    ``is_other``: an ordinary text has other tokens by these rules.
    """

    tokenizer: tokenizers.Tokenizer
    rules: TokenizerClass | None
    added: Mapping[int, tokenizers.AddedToken]
    is_other: bool = False


def load_tokenizer(text: str, settings: Settings, config: Settings) -> Loaded:
    """The tokenizer of a folder: ``text`` is tokenizer.json, the others as for ``find_class``."""
    own = tokenizers.Tokenizer.from_str(text)
    # Left by training; a prompt must be neither cut nor filled up, and have the same tokens each time.
    own.no_truncation()
    own.no_padding()
    if isinstance(own.model, models.BPE):
        own.model.dropout = None
    added = dict(own.get_added_tokens_decoder())
    rules = find_class(settings, config, is_byte_level='"ByteLevel"' in text)
    if rules is None:
        return Loaded(own, None, added)
    before = own.encode(_ORDINARY, add_special_tokens=False).ids
    rebuilt = rules.rebuild(own, rules.defaults(settings))
    if rebuilt is None:
        return Loaded(own, None, added)
    after = rebuilt.encode(_ORDINARY, add_special_tokens=False).ids
    return Loaded(rebuilt, rules, added, is_other=before != after)


def find_class(settings: Settings, config: Settings, *, is_byte_level: bool) -> TokenizerClass | None:
    """The class that transformers takes for a folder; None where it keeps tokenizer.json as it is.

    ``settings`` are those of tokenizer_config.json, ``config`` those of config.json.
    """
    named = settings.get("tokenizer_class") or config.get("tokenizer_class")
    if not isinstance(named, str):
        return None
    family, name = config.get("model_type"), named.removesuffix("Fast")
    own_code = settings.get("auto_map")
    has_own_code = bool(own_code.get("AutoTokenizer") if isinstance(own_code, Mapping) else own_code)
    if not has_own_code and family in _OF_NO_CLASS:
        return None
    if not has_own_code and is_byte_level and name == "LlamaTokenizer":
        return None
    if not has_own_code:
        name = _CLASS_IN_ANY_CASE.get(str(family), name)
    return _CLASSES.get(name)


def _steps(description: Any) -> Iterator[Mapping[str, Any]]:
    """The steps of a normaliser, of which one may be a sequence."""
    if isinstance(description, Mapping):
        yield from description.get("normalizers", [description])


_PLAIN_BPE: dict[str, Any] = {
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": False,
}
_OF_CHARACTERS = {"fuse_unk": True, "byte_fallback": True}


def _without_flags(added: SpecialTokens) -> Iterator[tokenizers.AddedToken]:
    """All special tokens, which lose what files say of the spaces beside them."""
    for token in added.others:
        yield tokenizers.AddedToken(str(token.content), special=True)


def _as_special(added: SpecialTokens) -> Iterator[tokenizers.AddedToken]:
    """All special tokens: those with a name keep the flags of the list, others those of their own."""
    listed = {str(token.content): token for token in added.listed.values()}
    named = set(added.named.values())
    for token in added.others:
        text = str(token.content)
        yield listed.get(text, token) if text in named else token


_SENTENCES = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
_ALL_END = dict.fromkeys(("unk_token", "bos_token", "eos_token"), _END)
_QWEN_NAMED = dict.fromkeys(("unk_token", "eos_token", "pad_token"), _END)
_INFILLING = {
    "prefix_token": "▁<PRE>", "middle_token": "▁<MID>", "suffix_token": "▁<SUF>", "eot_token": "▁<EOT>",
    "fill_token": "<FILL_ME>",
}  # fmt: skip
_COHERE_NAMED = {
    "unk_token": "<UNK>", "bos_token": "<BOS_TOKEN>", "eos_token": "<|END_OF_TURN_TOKEN|>",
    "pad_token": "<PAD>", "cls_token": "<CLS>", "sep_token": "<SEP>", "mask_token": "<MASK_TOKEN>",
}  # fmt: skip
_CLASSES: dict[str, TokenizerClass] = {
    "LlamaTokenizer": TokenizerClass(class_rules.llama, _SENTENCES, _OF_CHARACTERS),
    "CodeLlamaTokenizer": TokenizerClass(
        class_rules.code_llama,
        {**_SENTENCES, **_INFILLING},
        {**_OF_CHARACTERS, "unk_token": "unk_token"},
        finish=class_rules.begin_before,
    ),
    "CohereTokenizer": TokenizerClass(class_rules.cohere, _COHERE_NAMED, named_again=_as_special),
    "GemmaTokenizer": TokenizerClass(
        class_rules.gemma,
        {"unk_token": "<unk>", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>",
         "mask_token": "<mask>"},
        {**_OF_CHARACTERS, "unk_token": "unk_token"},
    ),
    "GPT2Tokenizer": TokenizerClass(class_rules.gpt2, _ALL_END),
    "GPTNeoXTokenizer": TokenizerClass(
        class_rules.gpt_neox, {**_ALL_END, "pad_token": "<|padding|>"}, finish=class_rules.nothing_around
    ),
    "Qwen2Tokenizer": TokenizerClass(
        class_rules.qwen(r"\p{L}", r"[^\s\p{L}\p{N}]"), _QWEN_NAMED, named_again=_without_flags
    ),
    "Qwen3_5Tokenizer": TokenizerClass(
        class_rules.qwen(r"[\p{L}\p{M}]", r"[^\s\p{L}\p{M}\p{N}]"), _QWEN_NAMED
    ),
    "T5Tokenizer": _Unigram(
        class_rules.t5,
        {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
        finish=class_rules.end_behind,
    ),
}  # fmt: skip
