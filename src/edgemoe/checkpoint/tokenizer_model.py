"""Folders whose tokenizer is no tokenizer.json but what training wrote: tokenizer.json is built of it.

Read are SentencePiece models (``tokenizer.model``: BPE and Unigram), tiktoken's ranks of the models of
Moonshot (``tiktoken.model``), and vocab.json with merges.txt (merges_files.py). The fields of SentencePiece's
protocol buffer are read here, because the library of that name gives neither the kind of model nor its
normaliser without a second library.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgemoe.checkpoint.gguf.build_tokenizer import BUILDERS, BuildError
from edgemoe.checkpoint.gguf.vocabulary import CONTROL, NORMAL, Vocabulary
from edgemoe.checkpoint.merges_files import VOCABULARY, build_of_merges, has_merges
from edgemoe.checkpoint.stand_ins import read_json
from edgemoe.errors import CheckpointError

FILES = ("tokenizer.model", "tiktoken.model")
_MAX_BYTES = 64 << 20
_MAX_TOKEN_CHARACTERS = 4096
_KINDS = {1: "t5", 2: "llama"}  # SentencePiece's number of a kind of model → the builder of its tokenizer
# Numbers of fields: of the model, of a piece, of the settings of training and of the normaliser.
_PIECE, _TRAINER, _NORMALIZER = 1, 2, 3
_TEXT, _SCORE, _TYPE = 1, 2, 3
_MODEL_TYPE = 3
_ROLES = {"unknown": 40, "bos": 41, "eos": 42, "padding": 43}
_DEFAULT_IDS = {"unknown": 0, "bos": 1, "eos": 2}
_CHARSMAP, _ADDS_PREFIX, _REMOVES_SPACES = 2, 3, 4
_REMOVES = "removes_spaces"
_NUM_RESERVED = 256  # special tokens of Moonshot's models, named or not


def build_tokenizer(folder: Path, config: Mapping[str, Any]) -> bytes | None:
    """tokenizer.json of the folder's other files; None where it has none of those.

    Raises:
        CheckpointError: a file is damaged, or of a kind that is not read.
    """
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None and has_merges(folder, config):
        path = folder / VOCABULARY
    if path is None:
        return None
    if path.stat().st_size > _MAX_BYTES:
        raise CheckpointError(f"{path}: has {path.stat().st_size} bytes, too many for a vocabulary")
    settings_path = folder / "tokenizer_config.json"
    settings = read_json(settings_path) if settings_path.is_file() else {}
    try:
        if path.name == VOCABULARY:
            return build_of_merges(folder, config, settings)
        return _build(path.read_bytes(), settings, config)
    except CheckpointError:
        raise
    except BuildError as error:
        raise CheckpointError(f"{path}: {error}; put the model's tokenizer.json beside it") from None
    except (ValueError, IndexError, struct.error, binascii.Error) as error:
        raise CheckpointError(f"{path}: is damaged: {error}; fetch it again") from None
    except Exception as error:  # the tokenizers library raises bare Exception
        raise CheckpointError(f"{path}: its vocabulary is damaged: {error}; fetch it again") from error


def _build(data: bytes, settings: Mapping[str, Any], config: Mapping[str, Any]) -> bytes:
    if is_ranks(data):
        kind, metadata, vocabulary = _read_ranks(data, settings, config)
    else:
        kind, metadata, vocabulary = _read_sentence_piece(data, settings)
    tokenizer = BUILDERS[kind](metadata, vocabulary).tokenizer
    if is_ranks(data):
        tokenizer.model.ignore_merges = True  # a word that has a rank is a token
    else:
        _normalize_first(tokenizer, kind, metadata)
    return str(tokenizer.to_str()).encode()


def is_ranks(data: bytes) -> bool:
    """Whether a file has tiktoken's lines: a token in base 64, a space, its rank."""
    first = data.split(b"\n", 1)[0].split(b" ")
    return len(first) == 2 and first[1].strip().isdigit() and first[0].isascii()


def _read_sentence_piece(data: bytes, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any], Vocabulary]:
    pieces: list[tuple[str, float, int]] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for number, value in _fields(data):
        if number == _PIECE:
            piece = dict(_fields(value))
            kind = int(piece.get(_TYPE, NORMAL))
            pieces.append((bytes(piece[_TEXT]).decode(), float(piece.get(_SCORE, 0.0)), kind))
        elif number == _TRAINER:
            trainer = dict(_fields(value))
        elif number == _NORMALIZER:
            normalizer = dict(_fields(value))
    if not pieces or max(len(text) for text, _, _ in pieces) > _MAX_TOKEN_CHARACTERS:
        raise ValueError("it has no pieces, or one of thousands of characters")
    model_type = trainer.get(_MODEL_TYPE, 1)
    if model_type not in _KINDS:
        raise BuildError(f"is a SentencePiece model of kind {model_type}; Unigram (1) and BPE (2) are read")
    texts, scores, kinds = (list(column) for column in zip(*pieces, strict=True))
    ids = {role: _signed(trainer.get(n, _DEFAULT_IDS.get(role, -1))) for role, n in _ROLES.items()}
    vocabulary = Vocabulary(texts, kinds, scores, {r: i for r, i in ids.items() if 0 <= i < len(texts)})
    charsmap, removes_spaces = normalizer.get(_CHARSMAP, b""), bool(normalizer.get(_REMOVES_SPACES, 1))
    metadata = {
        "tokenizer.ggml.add_space_prefix": normalizer.get(_ADDS_PREFIX, 1),
        "tokenizer.ggml.remove_extra_whitespaces": bool(charsmap) and removes_spaces,
        "tokenizer.ggml.precompiled_charsmap": charsmap,
        _REMOVES: removes_spaces,
        "tokenizer.ggml.add_bos_token": settings.get("add_bos_token", model_type == 2),
        "tokenizer.ggml.add_eos_token": settings.get("add_eos_token", model_type == 1),
    }
    return _KINDS[model_type], metadata, vocabulary


def _normalize_first(tokenizer: Any, kind: str, metadata: Mapping[str, Any]) -> None:
    """What SentencePiece does to a text that the builders, made for GGUF files, leave out."""
    from tokenizers import Regex, normalizers

    steps: list[Any] = []
    charsmap = metadata["tokenizer.ggml.precompiled_charsmap"]
    if charsmap and kind == "llama":
        steps.append(normalizers.Precompiled(charsmap))
    if metadata[_REMOVES] and (kind == "llama" or not charsmap):
        steps += [
            normalizers.Replace(Regex("^ +| +$"), ""),
            normalizers.Replace(Regex(" +"), " "),
        ]
    if steps:
        last = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
        tokenizer.normalizer = normalizers.Sequence([*steps, *last])


def _read_ranks(
    data: bytes, settings: Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[str, dict[str, Any], Vocabulary]:
    if not str(config.get("model_type")).startswith("kimi"):
        raise BuildError("has tiktoken's ranks, which do not say how a text is split into words")
    ranks: dict[bytes, int] = {}
    for line in data.splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token, validate=True)] = int(rank)
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise ValueError("its ranks have gaps")
    named = settings.get("added_tokens_decoder") or {}
    special = [
        str(named[str(i)]["content"]) if str(i) in named else f"<|reserved_token_{i}|>"
        for i in range(len(ranks), len(ranks) + _NUM_RESERVED)
    ]
    letters = _letters()
    texts = ["".join(letters[byte] for byte in token) for token in sorted(ranks, key=ranks.__getitem__)]
    kinds = [NORMAL] * len(texts) + [CONTROL] * len(special)
    metadata = {
        "general.architecture": "kimi-linear",
        "tokenizer.ggml.pre": "kimi-k2",
        "tokenizer.ggml.merges": list(_merges(texts)),
        "tokenizer.ggml.add_bos_token": False,
    }
    return "gpt2", metadata, Vocabulary([*texts, *special], kinds, [], {})


def _merges(texts: list[str]) -> Iterator[str]:
    """Every pair of tokens that makes a token, in the order of what it makes."""
    places = {text: place for place, text in enumerate(texts)}
    for text in texts:
        cuts = [(text[:i], text[i:]) for i in range(1, len(text))]
        pairs = [pair for pair in cuts if pair[0] in places and pair[1] in places]
        for left, right in sorted(pairs, key=lambda pair: (places[pair[0]], places[pair[1]])):
            yield f"{left} {right}"


def _letters() -> dict[int, str]:
    """The character that byte-level vocabularies write for each byte: itself where it can be seen."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return {byte: chr(byte) for byte in seen} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers and values of a protocol buffer's fields: integers, single-precision numbers, bytes."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, place = _varint(data, place)
            yield number, value
        elif kind == 2:
            length, place = _varint(data, place)
            if length > len(data) - place:
                raise ValueError("a field ends behind its end")
            yield number, data[place : place + length]
            place += length
        elif kind == 5:
            yield number, struct.unpack_from("<f", data, place)[0]
            place += 4
        elif kind == 1:
            place += 8
        else:
            raise ValueError(f"is no SentencePiece model (a field of kind {kind})")


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number has too many digits")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
