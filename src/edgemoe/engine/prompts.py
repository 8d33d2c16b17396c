"""Prompts as token ids: texts are tokenised, everything else is checked."""

from __future__ import annotations

from collections.abc import Sequence

from edgemoe.arguments import token_ids
from edgemoe.engine.loading import Engine
from edgemoe.errors import RequestError
from edgemoe.text.pieces import PIECE_CHARACTERS


def read_prompt(engine: Engine, prompt: str | Sequence[int]) -> list[int]:
    """The tokens of a prompt; a text far too long for the context is not tokenised to its end.

    Raises:
        RequestError: it is neither a text nor token ids, or far too long.
    """
    if not isinstance(prompt, str):
        return token_ids("the prompt", prompt)
    context = engine.memory.context
    found = engine.tokenizer.encode_prompt(prompt, most=context)
    if len(found) > context and len(prompt) > 2 * PIECE_CHARACTERS:
        raise RequestError(
            f"more than {context} tokens do not fit the context of {context}; shorten the text of"
            f" {len(prompt)} characters, or load with a longer context, up to {engine.spec.max_context}"
        )
    return found
