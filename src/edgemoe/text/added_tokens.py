"""Tokens that stand beside tokenizer.json: named, extra and added ones, as transformers puts them together.

Newer folders list them in tokenizer_config.json under ``added_tokens_decoder``. Without that list older files
count: special_tokens_map.json and added_tokens.json. A token that the vocabulary lacks gets the next free id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import tokenizers

from edgemoe.errors import StoreError

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_Token = tokenizers.AddedToken


@dataclass(frozen=True)
class SpecialTokens:
    """``named``: text by name, as chat templates see it. ``added``: what the tokenizer must know besides."""

    named: Mapping[str, str]
    added: tuple[_Token, ...]


def read_special_tokens(
    settings: Mapping[str, Any], special_map: Mapping[str, Any], added: Mapping[str, Any]
) -> SpecialTokens:
    """Put together tokenizer_config.json, special_tokens_map.json and added_tokens.json.

    Raises:
        StoreError: a token is neither a text nor the description of one.
    """
    listed = _listed(settings.get("added_tokens_decoder"))
    values = dict(settings)
    if "added_tokens_decoder" not in settings:
        values |= {k: v for k, v in special_map.items() if v is not None}
    named = dict(_named(values))
    extra = list(_extra(values))
    if "added_tokens_decoder" not in settings:
        special = {str(t.content) for t in (*named.values(), *extra)}
        listed = _from_added_file(added, special)
    flags = {str(token.content): token for token in listed.values()}
    named = {name: flags.get(str(token.content), token) for name, token in named.items()}
    for token in (*named.values(), *extra):
        token.special = True
    ordered = [listed[i] for i in sorted(listed)]
    return SpecialTokens(
        {name: str(token.content) for name, token in named.items()}, (*ordered, *named.values(), *extra)
    )


def _named(values: Mapping[str, Any]) -> Iterator[tuple[str, _Token]]:
    """The usual names first, then those that a model brings along."""
    for name in NAMED:
        if values.get(name):
            yield name, _token(name, values[name])
    for name, value in values.items():
        if name.endswith("_token") and name not in NAMED and (isinstance(value, str) or _is_token(value)):
            yield name, _token(name, value)
    for key in ("extra_special_tokens", "model_specific_special_tokens"):
        own = values.get(key)
        if isinstance(own, dict):
            for name, value in own.items():
                yield str(name), _token(str(name), value)


def _extra(values: Mapping[str, Any]) -> Iterator[_Token]:
    for key in ("extra_special_tokens", "additional_special_tokens"):
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
