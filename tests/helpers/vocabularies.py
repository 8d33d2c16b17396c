"""Small vocabularies of every kind that checkpoints bring, each with its own way of decoding."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

SPECIALS = ["<unk>", "<s>", "</s>"]
_PIECES = ["▁", "a", "b", "▁a", "▁b", "ab", "▁▁", "\n", "é", "."]
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def _bpe(tokens: list[str], **options) -> Tokenizer:
    return Tokenizer(
        models.BPE({token: i for i, token in enumerate(tokens)}, [], unk_token="<unk>", **options)
    )


def byte_level() -> Tokenizer:
    tokenizer = _bpe([*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ã©", "Ġa"])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentence_piece(strip: int) -> Tokenizer:
    tokenizer = _bpe([*SPECIALS, *_BYTES, *_PIECES], fuse_unk=True, byte_fallback=True)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    steps += [decoders.Strip(" ", strip, 0)] if strip else []
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def metaspace() -> Tokenizer:
    tokenizer = _bpe([*SPECIALS, *_PIECES])
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def unigram() -> Tokenizer:
    pieces = [(token, -float(i)) for i, token in enumerate([*SPECIALS, *_BYTES, *_PIECES])]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return tokenizer


def word_piece() -> Tokenizer:
    tokens = [*SPECIALS, "a", "##a", "##b", "do", "n't", ".", "'s", ","]
    tokenizer = Tokenizer(models.WordPiece({t: i for i, t in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def bpe_with_suffix() -> Tokenizer:
    tokenizer = _bpe([*SPECIALS, "a", "b</w>", "c</w>", "d"], end_of_word_suffix="</w>")
    tokenizer.decoder = decoders.BPEDecoder()
    return tokenizer


def ctc() -> Tokenizer:
    tokenizer = _bpe([*SPECIALS, "<pad>", "|", "a", "b"])
    tokenizer.decoder = decoders.CTC()
    return tokenizer


def words() -> Tokenizer:
    return _bpe([*SPECIALS, "one", "two", "."])


def joined_first() -> Tokenizer:
    """A rule that reaches over tokens: two marks make one space."""
    tokenizer = _bpe([*SPECIALS, *_PIECES])
    tokenizer.decoder = decoders.Sequence([decoders.Fuse(), decoders.Replace("▁▁", " ")])
    return tokenizer


def pattern_first() -> Tokenizer:
    tokenizer = _bpe([*SPECIALS, *_PIECES])
    tokenizer.decoder = decoders.Sequence([decoders.Fuse(), decoders.Replace(Regex("▁+a"), " A")])
    return tokenizer


KINDS = {
    "byte-level": byte_level,
    "llama": lambda: _sentence_piece(1),
    "gemma": lambda: _sentence_piece(0),
    "strips-two": lambda: _sentence_piece(2),
    "metaspace": metaspace,
    "unigram": unigram,
    "word-piece": word_piece,
    "suffix": bpe_with_suffix,
    "ctc": ctc,
    "words": words,
    "joined-first": joined_first,
    "pattern-first": pattern_first,
}


def make_tokenizer(kind: str) -> Tokenizer:
    """A vocabulary of this kind, its special tokens known."""
    tokenizer = KINDS[kind]()
    tokenizer.add_special_tokens(SPECIALS)
    return tokenizer
