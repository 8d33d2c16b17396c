"""Conversations as a checkpoint's chat templates write them: whole ones, and ones whose end is left open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgemoe.errors import RequestError
from edgemoe.text.templates import REASONING, ChatTemplate, Message, read_templates

# Stands for an assistant's answer when the template is asked what follows one.
_SENTINEL = "\x02answer\x03"


class Chats:
    """The chat templates of a folder, read when they are first asked for. Thread-safe."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], variables: Mapping[str, str]) -> None:
        """``settings`` are those of tokenizer_config.json; ``variables`` every template gets."""
        self._folder = folder
        self._settings = settings
        self._variables = variables
        self._templates: dict[str, ChatTemplate] | None = None

    def sources(self) -> dict[str, str]:
        """The templates by name, "default" first; empty where there is none.

        Raises:
            StoreError: a template's file cannot be read.
        """
        return {name: template.source for name, template in self._all().items()}

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None,
        documents: Sequence[Mapping[str, Any]] | None,
        options: Mapping[str, Any],
    ) -> str:
        """The conversation as text; ``options`` are what the template may ask for.

        Raises:
            RequestError: the checkpoint has no template for it, or that refuses the messages.
        """
        templates = self._all()
        name = "tool_use" if tools is not None and "tool_use" in templates else "default"
        if name not in templates and templates:
            raise RequestError(
                f"{self._folder}: its chat templates are for special purposes ({', '.join(templates)}), none"
                " is the default; use `edgemoe run` with a plain prompt, or put one into chat_template.jinja"
            )
        if name not in templates:
            raise RequestError(
                f"{self._folder}: the checkpoint has no chat template; use `edgemoe run` with a plain prompt"
            )
        return templates[name].render(messages, tools, documents, {**self._variables, **options})

    def render_open(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None,
        documents: Sequence[Mapping[str, Any]] | None,
        options: Mapping[str, Any],
        field: str,
    ) -> str:
        """The conversation up to the end of the last message's ``field``, with which an answer goes on.

        Raises:
            RequestError: as ``render``; or the last message has no such text, or the template leaves it out.
        """
        marked = [*messages[:-1], _marked(messages[-1] if messages else {}, field)]
        text = self.render(marked, tools, documents, {**options, "add_generation_prompt": False})
        before, found, after = text.rpartition(_SENTINEL)
        if not found:
            raise RequestError(
                "the chat template leaves out the last message, so no answer can go on with it"
            )
        # A template that strips texts would have stripped this one.
        return before if after.startswith(" ") else before.rstrip()

    def text_after_answer(self) -> str:
        """What the template writes behind an assistant's answer; nothing where no template can tell."""
        turn = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _SENTINEL}]
        try:
            rendered = self.render(turn, None, None, {"add_generation_prompt": False})
        except RequestError:
            return ""
        _, found, after = rendered.rpartition(_SENTINEL)
        return after.strip() if found else ""

    def _all(self) -> dict[str, ChatTemplate]:
        if self._templates is None:
            self._templates = read_templates(self._folder, self._settings)
        return self._templates


def _marked(message: Message, field: str) -> Message:
    """The message with a mark behind a text, and a space that shows whether the template strips texts."""
    content = message.get(field) if isinstance(message, Mapping) else None
    if isinstance(content, str):
        # Templates read thoughts under one of several names.
        names = (
            [name for name in REASONING if message.get(name) == content] if field in REASONING else [field]
        )
        return {**message, **dict.fromkeys(names, f"{content}{_SENTINEL} ")}
    parts = list(content) if isinstance(content, Sequence) else []
    for i in reversed(range(len(parts))):
        if isinstance(parts[i], Mapping) and isinstance(parts[i].get("text"), str):
            parts[i] = {**parts[i], "text": f"{parts[i]['text']}{_SENTINEL} "}
            return {**message, field: parts}
    raise RequestError("the last message has no text that an answer could go on with")
