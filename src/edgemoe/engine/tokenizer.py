"""Text ↔ tokens: the checkpoint's tokenizer, its chat template, and decoding while tokens arrive."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import tokenizers

from edgemoe.errors import RequestError, StoreError

_REPLACEMENT = "\ufffd"
# Stands for an assistant's answer when the template is asked what follows one.
_SENTINEL = "\x02answer\x03"
_T5_SENTINEL = "<extra_id_"

Message = Mapping[str, Any]


class Tokenizer:
    """The tokenizer of a store. A store without tokenizer.json still runs on token ids."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self._folder = folder
        self._settings = _read_json(folder / "tokenizer_config.json")
        self._tokenizer: tokenizers.Tokenizer | None = None
        path = folder / "tokenizer.json"
        if path.is_file():
            try:
                self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
            except Exception as error:  # the library raises bare Exception
                raise StoreError(f"{path}: not a tokenizer: {error}") from error
        generation = _read_json(folder / "generation_config.json")
        self.stop_ids = _ids(generation.get("eos_token_id")) | _ids(config.get("eos_token_id"))
        self.stop_ids |= self._id_of(self._settings.get("eos_token"))
        self._special_ids, self._sentinel_ids = _special_ids(self._tokenizer)

    @property
    def is_available(self) -> bool:
        """Whether the store has a tokenizer at all."""
        return self._tokenizer is not None

    @property
    def bos_id(self) -> int | None:
        """The token that a text begins with, where the checkpoint names one."""
        return min(self._id_of(self._settings.get("bos_token")), default=None)

    @property
    def eos_id(self) -> int | None:
        """The token that ends a text, as the tokenizer's settings name it; ``stop_ids`` has all of them."""
        return min(self._id_of(self._settings.get("eos_token")) or self.stop_ids, default=None)

    def encode(self, text: str, *, adds_special: bool = True) -> list[int]:
        """Token ids of a text, with the tokens that the tokenizer puts around a text if wanted.

        Raises:
            RequestError: the store has no tokenizer, or the text is none.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:  # bytes of a command line that are not UTF-8
            raise RequestError(f"the text is not UTF-8: {error.reason} at {error.start}") from None
        return list(self._require().encode(text, add_special_tokens=adds_special).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out; sentinels, which T5 answers with, are kept."""
        tokenizer = self._require()
        if self._sentinel_ids.isdisjoint(token_ids):
            return str(tokenizer.decode(list(token_ids), skip_special_tokens=True))
        shown = [t for t in token_ids if t in self._sentinel_ids or t not in self._special_ids]
        return str(tokenizer.decode(shown, skip_special_tokens=False))

    def render_chat(self, messages: Sequence[Message]) -> str:
        """The conversation as the model expects it, up to where its answer begins.

        Raises:
            RequestError: the checkpoint has no chat template, or it refuses the messages.
        """
        return self._render(messages, adds_prompt=True)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of ``render_chat``; the template itself writes the special tokens."""
        return self.encode(self.render_chat(messages), adds_special=False)

    def turn_end_ids(self) -> frozenset[int]:
        """Special tokens with which the template ends an assistant's turn."""
        turn = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _SENTINEL}]
        try:
            _, _, after = self._render(turn, adds_prompt=False).rpartition(_SENTINEL)
        except RequestError:
            return frozenset()
        first = self.encode(after.strip(), adds_special=False)[:1]
        special = {i for i, t in self._require().get_added_tokens_decoder().items() if t.special}
        return frozenset(special.intersection(first))

    def _require(self) -> tokenizers.Tokenizer:
        if self._tokenizer is None:
            raise RequestError(
                f"{self._folder}: has no tokenizer.json, so it takes token ids only; copy the checkpoint's"
                " tokenizer.json beside config.json and convert again"
            )
        return self._tokenizer

    def _id_of(self, token: Any) -> frozenset[int]:
        """Id of a token given as text or as the object that Hugging Face writes."""
        text = token.get("content") if isinstance(token, dict) else token
        if self._tokenizer is None or not isinstance(text, str):
            return frozenset()
        token_id = self._tokenizer.token_to_id(text)
        return frozenset() if token_id is None else frozenset([token_id])

    def _template(self) -> str:
        path = self._folder / "chat_template.jinja"
        if path.is_file():
            return path.read_text(encoding="utf-8")
        template = self._settings.get("chat_template")
        if isinstance(template, list):
            named = {entry["name"]: entry["template"] for entry in template}
            template = named.get("default")
        if not isinstance(template, str):
            raise RequestError(
                f"{self._folder}: the checkpoint has no chat template; use `edgemoe run` with a plain prompt"
            )
        return template

    def _render(self, messages: Sequence[Message], *, adds_prompt: bool) -> str:
        import jinja2
        import jinja2.sandbox

        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = lambda x, **kwargs: json.dumps(x, ensure_ascii=False, **kwargs)
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
        try:
            return environment.from_string(self._template()).render(
                messages=list(messages),
                add_generation_prompt=adds_prompt,
                bos_token=self._special("bos_token"),
                eos_token=self._special("eos_token"),
            )
        except jinja2.TemplateError as error:
            raise RequestError(f"the chat template refuses this conversation: {error}") from error

    def _special(self, name: str) -> str:
        token = self._settings.get(name)
        return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")


class StreamDecoder:
    """Turns tokens into text as they arrive, in whole characters only."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown = ""

    def push(self, token_id: int) -> str:
        """Text that this token completes; empty while a character is unfinished."""
        self._ids.append(token_id)
        text = self._tokenizer.decode(self._ids)
        if text.endswith(_REPLACEMENT):
            return ""
        new = text[len(self._shown) :]
        if new:
            # One token of context is enough for tokenizers that write spaces by what precedes.
            self._ids = self._ids[-1:]
            self._shown = self._tokenizer.decode(self._ids)
        return new

    def flush(self) -> str:
        """What is left when no more tokens come."""
        return self._tokenizer.decode(self._ids)[len(self._shown) :]


def _special_ids(tokenizer: tokenizers.Tokenizer | None) -> tuple[frozenset[int], frozenset[int]]:
    """Ids of all special tokens, and of those that stand for what was left out of a text."""
    if tokenizer is None:
        return frozenset(), frozenset()
    special = {i: str(t.content) for i, t in tokenizer.get_added_tokens_decoder().items() if t.special}
    return frozenset(special), frozenset(i for i, text in special.items() if text.startswith(_T5_SENTINEL))


def _refuse(message: str) -> NoReturn:
    import jinja2

    raise jinja2.TemplateError(message)


def _ids(value: Any) -> frozenset[int]:
    if value is None:
        return frozenset()
    return frozenset(int(i) for i in (value if isinstance(value, list) else [value]))


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error
    return value if isinstance(value, dict) else {}
