"""Prompts as token ids: texts are tokenised, everything else is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgemoe.arguments import token_ids
from edgemoe.engine.loading import Engine
from edgemoe.errors import ContextError
from edgemoe.text import Message
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
    _refuse_too_long(engine, prompt, found)
    return found


def read_chat(engine: Engine, messages: Sequence[Message], template: Mapping[str, Any]) -> list[int]:
    """The tokens of a conversation, as ``read_prompt`` for what the chat template makes of it.

    Raises:
        RequestError: there is no template, it refuses the conversation, or that is far too long.
    """
    text = engine.tokenizer.render_chat(messages, **template)
    found = engine.tokenizer.encode(text, adds_special=False, most=engine.memory.context)
    _refuse_too_long(engine, text, found)
    return found


def _refuse_too_long(engine: Engine, text: str, found: Sequence[int]) -> None:
    context, most = engine.memory.context, engine.spec.max_context
    if len(found) > context and len(text) > 2 * PIECE_CHARACTERS:
        longer = f", or load with a longer context, up to {most}" if context < most else ""
        raise ContextError(
            f"more than {context} tokens do not fit the context of {context}; shorten the text of"
            f" {len(text)} characters{longer}"
        )
