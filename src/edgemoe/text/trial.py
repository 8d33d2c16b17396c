"""Trying a checkpoint's tokenizer and chat template before hours of conversion."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgemoe.errors import RequestError
from edgemoe.text.tokenizer import Tokenizer

_TURN = [{"role": "user", "content": "Hi"}]


def try_text_files(files: Mapping[str, bytes], config: Mapping[str, Any], vocab_size: int) -> tuple[str, ...]:
    """What to say of tokenizer files by name: that the chat template fails, if it does.

    ``vocab_size``: token ids that the model has embeddings of.

    Raises:
        StoreError: the store would not be loaded with these files.
    """
    with TemporaryDirectory(prefix="edgemoe-") as name:
        folder = Path(name)
        for file, data in files.items():
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        tokenizer = Tokenizer(folder, config)
        if not tokenizer.is_available:
            return ()
        notes = _vocabulary_notes(tokenizer.num_ids, vocab_size)
        if tokenizer.has_rules_of_class:
            notes.append(
                "texts are split by the rules of the class that tokenizer_config.json names, as transformers"
                " does, and not by tokenizer.json's, which differ; to have these, set tokenizer_class there"
                " to TokenizersBackend and convert again"
            )
        if tokenizer.chat_templates():
            notes += _template_notes(folder, tokenizer)
    return tuple(notes)


def _template_notes(folder: Path, tokenizer: Tokenizer) -> list[str]:
    try:
        text = tokenizer.render_chat(_TURN)
        tokenizer.encode(text, adds_special=False)
    except RequestError as error:
        return [f"`edgemoe chat` will not work with this model: {_without(folder, error)}"]
    if _TURN[0]["content"] not in text:
        return [
            "the chat template leaves out what a user writes: `edgemoe chat` will not work with this model"
        ]
    return []


def _vocabulary_notes(num_ids: int, vocab_size: int) -> list[str]:
    if num_ids <= vocab_size:
        return []
    return [
        f"the tokenizer has ids up to {num_ids - 1}, and the model embeddings of {vocab_size}: texts with the"
        " tokens beyond are refused; is it another model's tokenizer?"
    ]


def _without(folder: Path, error: RequestError) -> str:
    """The reason, without the name of a folder that is gone when it is read."""
    return str(error).removeprefix(f"{folder}: ")
