"""Trying a checkpoint's tokenizer and chat template before hours of conversion."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgemoe.errors import RequestError
from edgemoe.text.tokenizer import Tokenizer

_TURN = [{"role": "user", "content": "Hi"}]


def try_text_files(files: Mapping[str, bytes], config: Mapping[str, Any]) -> tuple[str, ...]:
    """What to say of tokenizer files by name: that the chat template fails, if it does.

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
        if not tokenizer.is_available or not tokenizer.template_names():
            return ()
        try:
            tokenizer.encode_chat(_TURN)
        except RequestError as error:
            return (f"`edgemoe chat` will not work with this model: {error}",)
    return ()
