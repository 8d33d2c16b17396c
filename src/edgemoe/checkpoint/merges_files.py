"""Folders whose tokenizer is vocab.json and merges.txt, as byte-level vocabularies were once saved.

The files do not say how a text is split into words: the class that tokenizer_config.json names does, when the
store is loaded, and else the rule is that of the model's family.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgemoe.checkpoint.gguf.build_tokenizer import BUILDERS
from edgemoe.checkpoint.gguf.splitting import find_splitting
from edgemoe.checkpoint.gguf.vocabulary import NORMAL, Vocabulary
from edgemoe.checkpoint.stand_ins import read_json
from edgemoe.errors import CheckpointError
from edgemoe.models.families import ALL_FAMILIES

VOCABULARY, MERGES = "vocab.json", "merges.txt"
_COMMENT = "#version"  # on any line, as the tokenizers library reads the file


def has_merges(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether a folder has both files, and the family's rule is known."""
    is_there = all((folder / name).is_file() for name in (VOCABULARY, MERGES))
    return is_there and find_splitting(None, _architecture(config)) is not None


def build_of_merges(folder: Path, config: Mapping[str, Any], settings: Mapping[str, Any]) -> bytes:
    """tokenizer.json of a folder that ``has_merges``; ``settings`` are those of tokenizer_config.json.

    Raises:
        CheckpointError: the files are damaged, or do not belong together.
    """
    ids = read_json(folder / VOCABULARY)
    tokens = sorted(ids, key=lambda token: str(ids[token]).zfill(9))
    if not tokens or [ids[token] for token in tokens] != list(range(len(tokens))):
        raise CheckpointError(f"{folder / VOCABULARY}: its ids are not those from 0 on; fetch it again")
    bos = settings.get("bos_token")
    first = ids.get(str(bos.get("content") if isinstance(bos, Mapping) else bos))
    metadata = {
        "general.architecture": _architecture(config),
        "tokenizer.ggml.merges": _merges(folder / MERGES),
        "tokenizer.ggml.add_bos_token": settings.get("add_bos_token") is True and first is not None,
    }
    vocabulary = Vocabulary(tokens, [NORMAL] * len(tokens), [], {} if first is None else {"bos": int(first)})
    return str(BUILDERS["gpt2"](metadata, vocabulary).tokenizer.to_str()).encode()


def _merges(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None
    return [line.rstrip("\r") for line in lines if line.strip() and not line.startswith(_COMMENT)]


def _architecture(config: Mapping[str, Any]) -> str:
    """What llama.cpp calls the family, by which its rule is found."""
    name = config.get("model_type")
    family = next((f for f in ALL_FAMILIES if name in (*f.model_types, *f.holders) and f.gguf), None)
    return "" if family is None or family.gguf is None else family.gguf.architecture
