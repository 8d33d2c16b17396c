"""A tokenizer folder written into a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
from tokenizers import Tokenizer


def add_tokenizer(writer: gguf.GGUFWriter, folder: Path, vocab_size: int) -> None:
    """Add the byte-level BPE of a Hugging Face folder, padded to ``vocab_size`` rows of the embedding."""
    record = json.loads((folder / "tokenizer.json").read_text())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    special = {token["id"] for token in record["added_tokens"] if token["special"]}
    merges = record["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    # Rows of the embedding beyond the vocabulary get a name and the type "unused".
    names = [tokenizer.id_to_token(i) for i in range(vocab_size)]
    writer.add_token_list([name or f"[PAD{i}]" for i, name in enumerate(names)])
    writer.add_token_types([5 if not name else 3 if i in special else 1 for i, name in enumerate(names)])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    for role in ("bos", "eos"):
        text = settings.get(f"{role}_token")
        if isinstance(text, str):
            getattr(writer, f"add_{role}_token_id")(tokenizer.token_to_id(text))
    template = folder / "chat_template.jinja"
    if template.is_file():
        writer.add_chat_template(template.read_text())
