"""Tokens that stand beside tokenizer.json: named, extra and added ones, as transformers puts them together.

Newer folders list them in tokenizer_config.json under ``added_tokens_decoder``. Without that list older files
count: special_tokens_map.json and added_tokens.json. A token that the vocabulary lacks gets the next free id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import tokenizers

from edgemoe.errors import StoreError

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_EXTRA = ("extra_special_tokens", "additional_special_tokens")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_MARK = {"__type": "AddedToken"}
_Token = tokenizers.AddedToken
# What GGUF files say of entries that stand for no text; checkpoint/gguf/tokenizer.py writes it.
_UNUSED_IDS = "unused_token_ids"


@dataclass(frozen=True)
class SpecialTokens:
    """``named``: text by name, as chat templates see it.

    ``listed``: tokens by id, with their flags; ``is_complete``: whether the list is a tokenizer's whole one.
    ``others``: named and extra tokens, of which mostly nothing but the text is said.
    """

    named: Mapping[str, str]
    listed: Mapping[int, _Token]
    is_complete: bool
    others: tuple[_Token, ...]

    def with_listed(self, own: Mapping[int, _Token]) -> SpecialTokens:
        """With the added tokens of tokenizer.json, where no complete list stands for them."""
        return self if self.is_complete else replace(self, listed={**self.listed, **own})

    def missing_from(self, own: Mapping[int, _Token]) -> list[_Token]:
        """What a tokenizer, whose added tokens are ``own``, has to be told of.

        A token that it has keeps its flags (what it strips beside it), unless a complete list has others.
        """
        same = {repr(token) for token in own.values()}
        added = [
            token
            for token_id, token in sorted(self.listed.items())
            if repr(token) not in same and (self.is_complete or token_id not in own)
        ]
        texts, named = {str(token.content) for token in added}, set(self.named.values())
        added += [t for t in own.values() if not t.special and str(t.content) in named - texts]
        texts |= {str(token.content) for token in own.values()}
        added += [token for token in self.others if str(token.content) not in texts]
        for token in added:
            token.special = token.special or str(token.content) in named
        return added


def read_special_tokens(
    settings: Mapping[str, Any], special_map: Mapping[str, Any], added: Mapping[str, Any]
) -> SpecialTokens:
    """Put together tokenizer_config.json, special_tokens_map.json and added_tokens.json.

    Raises:
        StoreError: a token is neither a text nor the description of one.
    """
    is_complete = "added_tokens_decoder" in settings
    values = dict(settings)
    if not is_complete:
        lists = any(isinstance(settings.get(key), list) for key in _EXTRA)
        values |= {
            key: {**_MARK, **value} if _is_token(value) else value
            for key, value in special_map.items()
            if value is not None and not (lists and key in _EXTRA)
        }
    named, extra = dict(_named(values)), tuple(_extra(values))
    texts = {name: str(token.content) for name, token in named.items()}
    if is_complete:
        listed = _listed(settings["added_tokens_decoder"])
    else:
        usual = {texts[name] for name in NAMED if name in texts}
        listed = _from_added_file(added, usual | {str(token.content) for token in extra})
    return SpecialTokens(texts, listed, is_complete, (*named.values(), *extra))


def read_unused_ids(settings: Mapping[str, Any]) -> frozenset[int]:
    """Tokens that a store's tokenizer_config.json calls unused.

    Raises:
        StoreError: it has no list of ids.
    """
    found = settings.get(_UNUSED_IDS, [])
    if not isinstance(found, list) or not all(type(token_id) is int for token_id in found):
        raise StoreError(f"tokenizer_config.json: {_UNUSED_IDS} is no list of token ids")
    return frozenset(found)


def _named(values: Mapping[str, Any]) -> Iterator[tuple[str, _Token]]:
    """The usual names first, then those that a model brings along."""
    for name in NAMED:
        if values.get(name):
            yield name, _token(name, values[name])
    for name, value in values.items():
        if name.endswith("_token") and name not in NAMED and (isinstance(value, str) or _is_marked(value)):
            yield name, _token(name, value)
    for key in ("extra_special_tokens", "model_specific_special_tokens"):
        own = values.get(key)
        if isinstance(own, dict):
            for name, value in own.items():
                yield str(name), _token(str(name), value)


def _extra(values: Mapping[str, Any]) -> Iterator[_Token]:
    for key in _EXTRA:
        tokens = values.get(key)
        if isinstance(tokens, list) and tokens:
            for value in tokens:
                yield _token(key, value)
            return


def _listed(value: Any) -> dict[int, _Token]:
    if value is None:
        return {}
    try:
        return {int(i): _token("added_tokens_decoder", token) for i, token in value.items()}
    except (AttributeError, ValueError):
        raise StoreError("tokenizer_config.json: added_tokens_decoder is no list of tokens by id") from None


def _from_added_file(added: Mapping[str, Any], special: set[str]) -> dict[int, _Token]:
    tokens = {}
    for text, token_id in added.items():
        if isinstance(token_id, bool) or not isinstance(token_id, int):
            raise StoreError(f"added_tokens.json: token {text!r} has no id")
        _refuse_halves(text)
        is_special = text in special
        tokens[token_id] = _Token(text, normalized=not is_special, special=is_special)
    return tokens


def _refuse_halves(text: str) -> None:
    """JSON can hold half of a character, which no text and no tokenizer can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise StoreError(
            f"the added token {text!r:.60} is no text; fetch the tokenizer's files again"
        ) from None


def _is_marked(value: Any) -> bool:
    """Whether a description says that it is a token's: under names of a model's own others mean nothing."""
    return _is_token(value) and _MARK.items() <= value.items()


def _is_token(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("content"), str)


def _token(name: str, value: Any) -> _Token:
    if isinstance(value, str):
        _refuse_halves(value)
        return _Token(value, special=True, normalized=False)
    if not _is_token(value):
        raise StoreError(f"tokenizer_config.json: {name} is {value!r:.60}, neither a text nor a token")
    flags = {flag: bool(value[flag]) for flag in _FLAGS if flag in value}
    _refuse_halves(value["content"])
    return _Token(value["content"], **flags)
