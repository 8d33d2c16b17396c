"""A store's tokenizer, chat templates and sampling settings → the keys of a GGUF file.

Of how text is parted into words a GGUF file has but a name. The name is found by what it does: the rule of
that name must part a text that has everything in it as the tokenizer does. In the end the keys are read
again, and the tokenizer that comes of them must give the same tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgemoe.checkpoint.gguf.build_tokenizer import BUILDERS, BuildError, splitter
from edgemoe.checkpoint.gguf.splitting import candidates
from edgemoe.checkpoint.gguf.tokenizer import SAMPLING, TEMPLATE
from edgemoe.checkpoint.gguf.vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    read_vocabulary,
)
from edgemoe.errors import CheckpointError, UnsupportedModelError
from edgemoe.text import Tokenizer

# Words, contractions, capitals, digits, marks, spaces of all kinds, scripts without spaces, composed and
# decomposed letters: what rules differ in.
_PROBE = (
    "Hello, World!  I'm 12345678 and don't; he'LL've 3.14159e-10 (x_1 + y²) == [a, b];\t\tif\n\n  \n return"
    "  camelCaseHTMLParser __init__  \r\n\r\nNaïve café cafe\u0301 Ελληνικά Кириллица עברית العربية हिन्दी ไทย"
    " 你好，世界。カタカナ ひらがな 한국어 １２３ ⅷ 🚀👩‍👩‍👧 \u200b\u00a0…—–“quotes” "
    " 100% $5 #tag @you a.b/c\\d ~~ ^^ ||\n"
    " 7 77 777 7777 77777 777777 7777777 x7y77z777 'S 'Re 'T Don'T \n\n\n\t \u3000 end "
)
_ROLES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding",
          "sep_token": "seperator", "mask_token": "mask"}  # fmt: skip
_KEY = "tokenizer.ggml."
# Of so many tokens the texts are tokenised by both tokenizers.
_NUM_PROBED = 2000


def vocabulary_keys(tokenizer: Tokenizer, vocab_size: int, architecture: str) -> tuple[dict[str, Any], str]:
    """The keys, and how text is parted into words, in a word for people.

    Raises:
        UnsupportedModelError: GGUF files have no way to say such a tokenizer.
    """
    if not tokenizer.is_available:
        return {f"{_KEY}model": "none"}, "none"
    record = json.loads(tokenizer.to_json())
    model = record["model"]
    if model["type"] != "BPE":
        raise _refusal(f"it is of the kind {model['type']}, and BPE alone is written")
    tokens, kinds = _tokens(record, vocab_size)
    special = _special_keys(tokenizer)
    keys: dict[str, Any] = {f"{_KEY}tokens": tokens}
    if _is_byte_level(record["pre_tokenizer"]):
        name = _splitting_name(record, architecture, special[f"{_KEY}add_bos_token"])
        keys |= {f"{_KEY}model": "gpt2", f"{_KEY}pre": name, f"{_KEY}merges": _merges(model)}
    elif architecture == "gemma4":
        name = "gemma4"
        keys |= {f"{_KEY}model": name, f"{_KEY}pre": name, f"{_KEY}merges": _merges(model)}
    else:
        name = "SentencePiece"
        has_prefix = '"Prepend"' in json.dumps(record["normalizer"]) or _prepends(record["pre_tokenizer"])
        keys |= {f"{_KEY}model": "llama", f"{_KEY}scores": _scores(model, tokens)}
        keys |= {f"{_KEY}pre": "default", f"{_KEY}add_space_prefix": has_prefix}
        kinds = [BYTE if _is_byte(token) else kind for token, kind in zip(tokens, kinds, strict=True)]
    keys |= {f"{_KEY}token_type": kinds, **special}
    _check(tokenizer, keys)
    return keys, name


def template_keys(tokenizer: Tokenizer) -> dict[str, str]:
    """The chat templates: the usual one, and others under names of their own."""
    templates = tokenizer.chat_templates()
    return {TEMPLATE if n == "default" else f"{TEMPLATE}.{n}": text for n, text in templates.items()}


def sampling_keys(defaults: Mapping[str, float]) -> dict[str, float]:
    """How the model's authors want tokens drawn, by the file's names."""
    return {
        f"general.sampling.{name}": int(defaults[ours]) if ours == "top_k" else float(defaults[ours])
        for name, ours in SAMPLING.items()
        if ours in defaults
    }


def _tokens(record: Mapping[str, Any], vocab_size: int) -> tuple[list[str], list[int]]:
    """Texts and kinds by id; rows of the embedding that no token has are named and unused."""
    unknown = record["model"].get("unk_token")
    by_id = {token_id: (text, NORMAL) for text, token_id in record["model"]["vocab"].items()}
    for added in record["added_tokens"]:
        by_id[added["id"]] = (added["content"], CONTROL if added["special"] else USER_DEFINED)
    if by_id and max(by_id) >= vocab_size:
        raise _refusal(f"it has token {max(by_id)}, and the model {vocab_size} tokens")
    found = [by_id.get(i, (f"[PAD{i}]", UNUSED)) for i in range(vocab_size)]
    kinds = [
        UNKNOWN if text == unknown else UNUSED if text in _names_of_none(i) else kind
        for i, (text, kind) in enumerate(found)
    ]
    return [text for text, _ in found], kinds


def _names_of_none(token_id: int) -> tuple[str, ...]:
    """What readers and writers of GGUF files call an id that no text has."""
    return (f"[PAD{token_id}]", f"[EMPTY_{token_id}]", f"[TWICE_{token_id}]")


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _is_byte_level(step: Mapping[str, Any] | None) -> bool:
    return any(one["type"] == "ByteLevel" for one in _steps(step))


def _prepends(step: Mapping[str, Any] | None) -> bool:
    return any(one.get("prepend_scheme", "never") != "never" for one in _steps(step))


def _steps(step: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    if step is not None:
        yield from step.get("pretokenizers", [step])


def _merges(model: Mapping[str, Any]) -> list[str]:
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]


def _scores(model: Mapping[str, Any], tokens: list[str]) -> list[float]:
    """Scores that put the merges into their order: the sooner a token is made, the higher."""
    ranks: dict[str, int] = {}
    for merge in model["merges"]:
        left, right = merge if not isinstance(merge, str) else merge.split(" ", 1)
        ranks.setdefault(left + right, len(ranks))
    return [-float(ranks.get(token, len(ranks))) for token in tokens]


def _splitting_name(record: Mapping[str, Any], architecture: str, adds_bos: bool) -> str:
    """The name of a rule that does the same: the first, or the first of those that agree in more."""
    from tokenizers import Tokenizer as Library

    words = _words(Library.from_str(json.dumps(record)).pre_tokenizer)
    ignores_merges = bool(record["model"].get("ignore_merges"))
    composes = '"NFC"' in json.dumps(record["normalizer"])
    fitting: list[tuple[tuple[bool, ...], str]] = []
    seen: dict[tuple[str, ...], bool] = {}
    for name, rule in candidates(architecture):
        if rule.patterns not in seen:
            seen[rule.patterns] = _words(splitter(rule)) == words
        if seen[rule.patterns]:
            others = (rule.ignores_merges, rule.is_composed, rule.adds_bos)
            wanted = (ignores_merges, composes, adds_bos)
            fitting.append((tuple(a != b for a, b in zip(others, wanted, strict=True)), name))
    if not fitting:
        raise _refusal("no rule of llama.cpp that is known here parts text into words as it does")
    return min(fitting, key=lambda one: one[0])[1]


def _words(splits: Any) -> list[str]:
    return [word for word, _ in splits.pre_tokenize_str(_PROBE)]


def _special_keys(tokenizer: Tokenizer) -> dict[str, Any]:
    """Tokens with a role, and which of them stand around every text."""
    named = {
        _ROLES[n]: tokenizer.token_id(text) for n, text in tokenizer.special_tokens.items() if n in _ROLES
    }
    ids = {role: token_id for role, token_id in named.items() if token_id is not None}
    if tokenizer.eos_id is not None:
        ids["eos"] = tokenizer.eos_id
    others = sorted(tokenizer.stop_ids - {ids.get("eos")})
    ids |= dict(zip(("eot", "eom"), others, strict=False))
    bare, whole = tokenizer.encode("a", adds_special=False), tokenizer.encode("a")
    before, after = whole[: whole.index(bare[0])], whole[whole.index(bare[0]) + len(bare) :]
    if len(before) > 1 or len(after) > 1:
        raise _refusal("it puts more than one token before or after a text")
    ids |= {role: around[0] for role, around in (("bos", before), ("eos", after)) if around}
    keys: dict[str, Any] = {f"{_KEY}{role}_token_id": token_id for role, token_id in ids.items()}
    return {**keys, f"{_KEY}add_bos_token": bool(before), f"{_KEY}add_eos_token": bool(after)}


def _check(tokenizer: Tokenizer, keys: Mapping[str, Any]) -> None:
    """Read the keys again: the same tokens of the probe, and of the texts of many tokens."""
    try:
        vocabulary = read_vocabulary(keys, Path("tokenizer.json"))
        built = BUILDERS[keys[f"{_KEY}model"]](keys, vocabulary).tokenizer
    except (BuildError, CheckpointError) as error:
        raise _refusal(str(error)) from error
    ids = range(0, len(vocabulary.tokens), max(1, len(vocabulary.tokens) // _NUM_PROBED))
    for text in (*_PROBE.split("  "), _PROBE, tokenizer.decode_all(list(ids))):
        if list(built.encode(text).ids) != tokenizer.encode(text):
            raise _refusal(f"read again, it would give other tokens of {text[:40]!r}")


def _refusal(why: str) -> UnsupportedModelError:
    return UnsupportedModelError(f"the tokenizer cannot be exported: {why}")
