"""How byte-level vocabularies of GGUF files split a text into words, by the name that the file gives it.

The file names the rule, llama.cpp's source has it: patterns that are applied one after the other, each to the
pieces that the one before has left, and what else hangs on the name. Where llama.cpp has changed a pattern
for its own engine, here is the one of the model's tokenizer.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_END = r"|\s*[\r\n]+|\s+(?!\S)|\s+"


def _like_llama(digits: str, words: str = r"[^\r\n\p{L}\p{N}]?\p{L}+", other: str = r"\s\p{L}\p{N}") -> str:
    return f"{_SHORT}|{words}|{digits}| ?[^{other}]+[\\r\\n]*{_END}"


_LLAMA3 = _like_llama(r"\p{N}{1,3}")
_QWEN2 = _like_llama(r"\p{N}")
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _by_case(digits: str, short: str) -> str:
    """Words that begin with capitals, words in capitals."""
    before = r"[^\r\n\p{L}\p{N}]?"
    return (
        f"{before}{_UPPER}*{_LOWER}+{short}|{before}{_UPPER}+{_LOWER}*{short}"
        f"|{digits}| ?[^\\s\\p{{L}}\\p{{N}}]+[\\r\\n/]*{_END}"
    )


_GPT4O = _by_case(r"\p{N}{1,3}", f"{_SHORT}?")
_MARKS_AND_LETTERS = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*" + _END
)
_CJK = "[一-龥぀-ゟ゠-ヿ]+"
_DEEPSEEK3 = (r"\p{N}{1,3}", _CJK, _MARKS_AND_LETTERS)
# Written as numbers: some of these characters change when an editor composes text.
_DEEPSEEK_LETTERS = (
    r"\s?[A-Za-z"
    "\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481"
    "\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b"
    "\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59"
    "\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3"
    "\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d"
    "\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b"
    "\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e"
    "\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
    "]+"
)
_LISTS = r" ?[^(\s|.,!?…。，、।۔،)]+"


@dataclass(frozen=True)
class Splitting:
    """Patterns in their order, and what else llama.cpp takes with the name.

    ``ignores_merges``: a word that stands in the vocabulary is a token, whatever merges say. ``adds_bos``: a
    text begins with the token for that, unless the file says otherwise. ``is_composed``: the model's own
    tokenizer composes characters first (NFC).
    """

    patterns: tuple[str, ...]
    ignores_merges: bool = False
    adds_bos: bool = False
    is_composed: bool = False


_DEFAULT = Splitting((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"))
_DIGITS_APART = Splitting((r"\p{N}", _GPT2))
_BY_NAME: dict[str, Splitting] = {
    "default": _DEFAULT,
    **dict.fromkeys(
        ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
         "jina-v5-nano"),
        Splitting((_LLAMA3,), ignores_merges=True, adds_bos=True),
    ),
    **dict.fromkeys(("dbrx", "smaug-bpe", "chatglm-bpe"), Splitting((_LLAMA3,))),
    **dict.fromkeys(("glm4", "glm5"), Splitting((_LLAMA3,), ignores_merges=True)),
    "minicpm5": Splitting((r"\p{N}{1,3}", _like_llama(r"\p{N}+")), ignores_merges=True),
    "jais-2": Splitting(
        (
            _like_llama(r"\p{N}{1,3}").removesuffix(_END)
            + r"|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)"
            r"|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}",
        )
    ),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez"), Splitting((_QWEN2,), is_composed=True)),
    **dict.fromkeys(
        ("kormo", "f2llmv2", "stablelm2", "hunyuan", "solar-open", "grok-2"), Splitting((_QWEN2,))
    ),
    "qwen35": Splitting(
        (_like_llama(r"\p{N}", r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+", r"\s\p{L}\p{M}\p{N}"),), is_composed=True
    ),
    "ufakzeka": Splitting((_QWEN2.removeprefix(_SHORT + "|"),)),
    "laguna": Splitting((r"[^\n]+|[\n]+", _QWEN2)),
    **dict.fromkeys(
        ("gpt-2", "phi-2", "jina-es", "jina-de", "gigachat", "jina-v2-es", "jina-v2-de", "a.x-4.0", "mellum",
         "modern-bert", "jina-v1-en", "jina-v2-code", "roberta-bpe", "mpt", "jais", "trillion",
         "granite-docling", "exaone4"),
        Splitting((_GPT2,)),
    ),
    "olmo": Splitting((_GPT2,), is_composed=True),
    **dict.fromkeys(
        ("starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"),
        _DIGITS_APART,
    ),
    "falcon": Splitting((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]")),
    "deepseek-llm": Splitting(
        (
            "[\r\n]", _DEEPSEEK_LETTERS, r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$",
            "[一-龥ࠀ-一가-퟿]+", r"\p{N}+",
        )
    ),
    "deepseek-coder": Splitting(("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}")),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"), Splitting(_DEEPSEEK3)),
    "spark2_5": Splitting(
        (*_DEEPSEEK3[:2], _MARKS_AND_LETTERS.replace(r"[\r\n]*|\s*[\r\n]+", r"|[\r\n]"), r"\p{N}")
    ),
    "youtu": Splitting(
        (
            "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|" + _CJK,
            _by_case(r"\p{N}", f"{_SHORT}?"),
        ),
        ignores_merges=True,
    ),
    **dict.fromkeys(("poro-chat", "bloom", "gpt3-finnish"), Splitting((_LISTS,))),
    "viking": Splitting((_LISTS, r"\p{N}")),
    "tekken": Splitting((_by_case(r"\p{N}", ""),), ignores_merges=True, adds_bos=True),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"), Splitting((_GPT4O,))),
    "granite-embed-multi-97m": Splitting((_GPT4O,), ignores_merges=True),
    **dict.fromkeys(("tiny_aya", "cohere2moe"), Splitting((r"\d{1,3}(?=(?:\d{3})*\b)", _GPT4O))),
    "chameleon": Splitting(
        (
            "<sentinel:[0-9]+>",
            "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            r"([\t\n]|    |  )",
            r"\p{N}",
            r"[\p{P}!-/:-@\[-`{-~]",
            _GPT2,
        ),
        adds_bos=True,
    ),
    "superbpe": Splitting((r"\p{N}+", r"(?=(\d{3})+(?!\d))")),
    **dict.fromkeys(
        ("bailingmoe", "bailingmoe2", "llada-moe"),
        Splitting(
            (
                r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
                r"|\s*[\r\n]|\s+(?!\S)|\s+",
            )
        ),
    ),
    "seed-coder": Splitting(
        (f"{_SHORT}|[^\\r\\n\\p{{L}}\\p{{N}}]?\\p{{L}}+|\\p{{N}}{{1}}| ?[^\\s\\p{{L}}\\p{{N}}\\r\\n]+{_END}",)
    ),
    "exaone-moe": Splitting(
        (
            _SHORT + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?"
            r"|\s*[\r\n]|\s+(?!\S)|\s+",
        )
    ),
    "kimi-k2": Splitting(
        (
            r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"
            r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+" + _SHORT + r"?"
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
            r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*" + _SHORT + r"?"
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _END,
        )
    ),
    "afmoe": Splitting(
        (
            # Digits in groups of three, counted from the end.
            r"\d{1,3}(?=(?:\d{3})*(?:\D|$))",
            "[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+",
            _MARKS_AND_LETTERS,
        )
    ),
}  # fmt: skip
# What models of these architectures split by, for files that do not say it or use a name of their own.
_BY_ARCHITECTURE = {
    "llama": "llama-bpe", "llama4": "llama4", "qwen2moe": "qwen2", "qwen3moe": "qwen2", "qwen3vlmoe": "qwen2",
    "qwen3next": "qwen2", "qwen35moe": "qwen35", "olmoe": "olmo", "gpt-oss": "gpt-4o",
    "deepseek": "deepseek-llm", "deepseek2": "deepseek-v3", "glm4moe": "glm4", "granitemoe": "refact",
    "granitehybrid": "refact",
    "dbrx": "dbrx", "dots1": "qwen2", "hunyuan-moe": "hunyuan", "bailingmoe": "bailingmoe",
    "bailingmoe2": "bailingmoe2", "lfm2moe": "lfm2", "minimax-m2": "minimax-m2", "exaone-moe": "exaone-moe",
    "smallthinker": "qwen2", "llada-moe": "llada-moe", "afmoe": "afmoe", "cohere2moe": "cohere2moe",
    "nemotron_h_moe": "pixtral", "grok": "grok-2",
}  # fmt: skip


def find_splitting(name: str | None, architecture: str) -> tuple[Splitting, str | None] | None:
    """The rule of this name, and a note where the architecture had to say it; None: neither does."""
    if name is not None and name in _BY_NAME:
        return _BY_NAME[name], None
    usual = _BY_ARCHITECTURE.get(architecture)
    if usual is None:
        return None
    what = (
        "does not say how it splits text into words" if name is None else f"splits text the way of {name!r}"
    )
    known = "" if name is None else ", which is not known"
    return _BY_NAME[usual], f"the file {what}{known}; split as {architecture} usually does ({usual})"


def candidates(architecture: str) -> Iterator[tuple[str, Splitting]]:
    """All rules with their names, the usual one of an architecture first."""
    usual = _BY_ARCHITECTURE.get(architecture)
    if usual is not None:
        yield usual, _BY_NAME[usual]
    yield from _BY_NAME.items()


def names() -> Iterator[str]:
    """All names that are known."""
    return iter(_BY_NAME)
