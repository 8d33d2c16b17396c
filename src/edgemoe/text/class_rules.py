"""What classes of transformers set on a tokenizer: how it splits, decodes, begins and ends a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, normalizers, pre_tokenizers, processors

# Settings of tokenizer_config.json, with what a class adds to them.
Settings = Mapping[str, Any]
Rules = Callable[[tokenizers.Tokenizer, Settings], None]

_SPACE = "▁"
_PREFIXED = "add_prefix_space"


def text_of(token: Any) -> str | None:
    """The text of a token, which may be described by more than that."""
    text = token.get("content") if isinstance(token, Mapping) else token
    return text if isinstance(text, str) else None


def _is_prefixed(settings: Settings, default: bool) -> bool:
    value = settings.get(_PREFIXED)
    return default if value is None else bool(value)


def _characters_decoder(strips: bool) -> Any:
    last = [decoders.Strip(" ", 1, 0)] if strips else []
    return decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *last])


def llama(tokenizer: tokenizers.Tokenizer, settings: Settings) -> None:
    """Llama 2's: characters, a space before a text, bytes for what is missing."""
    is_prefixed = _is_prefixed(settings, True)
    scheme = ("always" if settings.get("legacy") else "first") if is_prefixed else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, scheme, split=False)
    tokenizer.decoder = _characters_decoder(strips=is_prefixed)


def code_llama(tokenizer: tokenizers.Tokenizer, settings: Settings) -> None:
    """CodeLlama's: as Llama's, whose older rule it never had."""
    scheme = "first" if _is_prefixed(settings, True) else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, scheme, split=False)
    tokenizer.decoder = _characters_decoder(strips=True)


def gemma(tokenizer: tokenizers.Tokenizer, settings: Settings) -> None:
    """Gemma's: characters, and no space before a text."""
    tokenizer.normalizer = normalizers.Replace(" ", _SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = _characters_decoder(strips=False)


def gpt2(tokenizer: tokenizers.Tokenizer, settings: Settings) -> None:
    """GPT-2's: bytes, in words by its pattern."""
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=_is_prefixed(settings, False))
    tokenizer.decoder = decoders.ByteLevel()


def cohere(tokenizer: tokenizers.Tokenizer, settings: Settings) -> None:
    """Cohere's: as GPT-2's, composed first, and digits apart."""
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=_is_prefixed(settings, False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), to_bytes]
    )
    tokenizer.decoder = decoders.ByteLevel()


def gpt_neox(tokenizer: tokenizers.Tokenizer, settings: Settings) -> None:
    """GPT-NeoX's: as GPT-2's, composed first."""
    tokenizer.normalizer = normalizers.NFC()
    gpt2(tokenizer, settings)


def qwen(letter: str, other: str) -> Rules:
    """Qwen's rule, of words that are made of ``letter``; ``other`` is neither letter, digit nor space."""
    pattern = (
        rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?{letter}+|\p{{N}}| ?{other}+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )

    def rules(tokenizer: tokenizers.Tokenizer, settings: Settings) -> None:
        words = pre_tokenizers.Split(Regex(pattern), "isolated")
        to_bytes = pre_tokenizers.ByteLevel(_is_prefixed(settings, False), use_regex=False)
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, to_bytes])
        tokenizer.decoder = decoders.ByteLevel()

    return rules


def t5(tokenizer: tokenizers.Tokenizer, settings: Settings) -> None:
    """T5's: words between spaces, each with a space before it."""
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(_SPACE, "always", split=True)]
    )
    tokenizer.decoder = decoders.Metaspace(_SPACE, "always", split=True)


def nothing_around(tokenizer: tokenizers.Tokenizer, settings: Settings) -> None:
    """No tokens around a text."""
    tokenizer.post_processor = processors.TemplateProcessing("$A", "$A $B", [])


def end_behind(tokenizer: tokenizers.Tokenizer, settings: Settings) -> None:
    """The end token behind a text."""
    token_id = tokenizer.token_to_id(text_of(settings.get("eos_token")) or "</s>")
    if token_id is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            ["$A", "</s>"], ["$A", "</s>", "$B", "</s>"], [("</s>", token_id)]
        )


def begin_before(tokenizer: tokenizers.Tokenizer, settings: Settings) -> None:
    """The first token before a text, where there is one."""
    text = text_of(settings.get("bos_token"))
    token_id = None if text is None else tokenizer.token_to_id(text)
    if text is None or token_id is None:
        nothing_around(tokenizer, settings)
    else:
        tokenizer.post_processor = processors.TemplateProcessing(
            [text, "$A"], [text, "$A", f"{text}:1", "$B:1"], [(text, token_id)]
        )
