"""Chat templates: where folders keep them, and rendering them with what transformers gives a template.

A template is a program of somebody else: it runs in a sandbox, and every failure is one line.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgemoe.errors import RequestError, StoreError
from edgemoe.text.side_files import read_json_object, read_text_file

Message = Mapping[str, Any]

# Templates of today take up to 60 KB; compiling costs a hundred times the memory of the text.
_MAX_CHARACTERS = 1 << 20
# Names under which messages bring what a model thought before its answer, the usual one first.
REASONING = ("reasoning_content", "thinking", "reasoning")


class ChatTemplate:
    """One template, compiled when it is first rendered. Any number of threads may render it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._compiled: Any = None
        self._lock = threading.Lock()

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None,
        documents: Sequence[Mapping[str, Any]] | None,
        variables: Mapping[str, Any],
    ) -> str:
        """The conversation as text.

        Raises:
            RequestError: the template is wrong, refuses the conversation or takes too much time or memory.
        """
        from edgemoe.text.sandbox import compile_template

        example = "[{'role': 'user', 'content': 'Hi'}]"
        if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
            raise RequestError(f"the messages are {messages!r:.60}; give a list such as {example}")
        if not messages:
            raise RequestError(f"the conversation is empty; give at least one message, such as {example}")
        _check_objects(
            "tools", tools, "JSON schemas, which transformers.utils.get_json_schema makes of functions"
        )
        _check_objects("documents", documents, "objects with a title and a text")
        with self._lock:
            try:
                values = _plain({**variables, "tools": tools, "documents": documents})
                values["messages"] = [_with_reasoning(_checked(message)) for message in messages]
                if self._compiled is None:
                    self._compiled = compile_template(self.source)
                return self._compiled(values)  # type: ignore[no-any-return]
            except RequestError:
                raise
            except RecursionError:
                raise _refusal("it is nested too deep") from None
            except MemoryError:
                raise _refusal("it takes too much memory") from None
            except Exception as error:  # a template can raise what Python can
                raise _refusal(_first_line(error)) from error


def read_templates(folder: Path, settings: Mapping[str, Any]) -> dict[str, ChatTemplate]:
    """All templates of a folder by name, "default" first.

    Files win over what stands in tokenizer_config.json (``settings``), as in transformers.

    Raises:
        StoreError: a file cannot be read, or what stands there is no template.
    """
    files = {"default": folder / "chat_template.jinja"}
    files |= {path.stem: path for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    named = {name: read_text_file(path) for name, path in files.items() if path.is_file()}
    named = named or _from_settings(settings)
    if not named:
        named = _from_settings(read_json_object(folder / "chat_template.json"))
    for name, source in named.items():
        if len(source) > _MAX_CHARACTERS:
            raise StoreError(f"{folder}: chat template {name!r} has {len(source)} characters, too many")
    return {name: ChatTemplate(named[name]) for name in sorted(named, key=lambda n: n != "default")}


def _from_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """Templates of a JSON file: one, a list of named ones, or an object of them."""
    template = settings.get("chat_template")
    if template is None:
        return {}
    if isinstance(template, str):
        return {"default": template}
    try:
        if isinstance(template, list):
            template = {entry["name"]: entry["template"] for entry in template}
        named = {str(name): source for name, source in template.items()}
    except (AttributeError, KeyError, TypeError):
        named = {"": None}
    if not all(isinstance(source, str) for source in named.values()):
        raise StoreError("tokenizer_config.json: chat_template is neither a template nor named templates")
    return named


def _check_objects(name: str, values: Any, what: str) -> None:
    """Refuse what a template would only see the name of."""
    if values is None:
        return
    is_list = isinstance(values, Sequence) and not isinstance(values, str | bytes)
    strange = next((v for v in values if not isinstance(_plain(v), dict)), None) if is_list else values
    if strange is not None or not is_list:
        raise RequestError(f"{name} have {strange!r:.60}; give a list of {what}")


def _checked(message: Message) -> dict[str, Any]:
    plain = _plain(message)
    if not isinstance(plain, dict):
        raise RequestError(
            f"a message is {message!r:.60}; give objects such as {{'role': 'user', 'content': 'Hi'}}"
        )
    # A key that is null, as clients send them, is none: templates would write "None".
    return {key: value for key, value in plain.items() if value is not None}


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """Templates of some models read the thoughts under another name."""
    found = next((message[name] for name in REASONING if message.get(name) is not None), None)
    if found is None:
        return message
    return {"thinking": found, **message, "reasoning_content": found}


def _plain(value: Any) -> Any:
    """A copy of plain JSON types: a template gets no object whose methods could do something."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [_plain(item) for item in value]
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, np.generic):
        return _plain(value.item())
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    dump = getattr(value, "model_dump", None)
    return _plain(dump()) if callable(dump) else f"<{type(value).__name__}>"


def _refusal(reason: str) -> RequestError:
    return RequestError(f"the chat template refuses this conversation: {reason}")


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    name = type(error).__name__
    # What templates say themselves arrives as TemplateError, and needs no name before it.
    return text if name == "TemplateError" and text else f"{name}: {text}"
