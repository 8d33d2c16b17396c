"""Text ↔ tokens: the checkpoint's tokenizer, its chat template, and the tokens that end an answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from edgemoe.arguments import token_ids as ids
from edgemoe.errors import RequestError, StoreError
from edgemoe.text.added_tokens import SpecialTokens, read_special_tokens, read_unused_ids
from edgemoe.text.chats import Chats
from edgemoe.text.classes import Loaded, load_tokenizer
from edgemoe.text.decoding import Decoding
from edgemoe.text.end_tokens import read_end_ids
from edgemoe.text.foreign_errors import OneLineErrors
from edgemoe.text.pieces import encode_in_parts
from edgemoe.text.side_files import read_json_object, read_text_file
from edgemoe.text.stream import Reach, decoder_steps
from edgemoe.text.templates import Message
from edgemoe.text.tidying import tidy
from edgemoe.text.token_bytes import TokenBytes

__all__ = ["Message", "Tokenizer"]

_T5_SENTINEL = "<extra_id_"
_TIDIES = "clean_up_tokenization_spaces"
_TIDIES_BPE = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"


class Tokenizer:
    """The tokenizer of a store. A store without tokenizer.json still runs on token ids.

    Its ids are those of transformers' AutoTokenizer for the same files. Any number of threads may use it.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self._folder = folder
        self._settings = read_json_object(folder / "tokenizer_config.json")
        loaded = _load(folder / "tokenizer.json", self._settings, config)
        rules = None if loaded is None else loaded.rules
        settings = self._settings if rules is None else rules.defaults(self._settings)
        special = read_special_tokens(
            settings,
            read_json_object(folder / "special_tokens_map.json"),
            read_json_object(folder / "added_tokens.json"),
        )
        self._tokenizer = None if loaded is None else loaded.tokenizer
        self.has_rules_of_class = loaded is not None and loaded.is_other
        self.special_tokens: Mapping[str, str] = special.named
        self._is_tidied = False
        self._special_ids = self._silent_ids = frozenset[int]()
        self.unused_ids = read_unused_ids(self._settings)
        self.reach = Reach(None, frozenset(), is_tidied=False)
        self._token_bytes: TokenBytes | None = None
        self._decoding: Decoding | None = None
        if loaded is not None:
            with OneLineErrors(StoreError, f"{folder}: its tokenizer cannot be used"):
                self._prepare(loaded, special)
        self.stop_ids = read_end_ids(folder, config, self._is_added) | self._id_of("eos_token")
        self._chats = Chats(folder, self._settings, self.special_tokens)

    @property
    def is_available(self) -> bool:
        """Whether the store has a tokenizer at all."""
        return self._tokenizer is not None

    @property
    def num_ids(self) -> int:
        """One more than the largest id of a token."""
        return 1 + max(self._require().get_vocab(with_added_tokens=True).values(), default=-1)

    @property
    def vocabulary(self) -> dict[str, int]:
        """All tokens by their text, and their ids."""
        return dict(self._require().get_vocab(with_added_tokens=True))

    @property
    def bos_id(self) -> int | None:
        """The token that a text begins with, where the checkpoint names one."""
        return min(self._id_of("bos_token"), default=None)

    @property
    def eos_id(self) -> int | None:
        """The token that ends a text, as the tokenizer's settings name it; ``stop_ids`` has all of them."""
        return min(self._id_of("eos_token") or self.stop_ids, default=None)

    def token_id(self, text: str) -> int | None:
        """The id of a token, if it is one."""
        token_id: int | None = self._require().token_to_id(text)
        return token_id

    def encode(self, text: str, *, adds_special: bool = True, most: int | None = None) -> list[int]:
        """Token ids of a text, with the tokens that the tokenizer puts around a text if wanted.

        A long text is tokenised in pieces, where that gives the same tokens. One of more than ``most`` tokens
        is not tokenised to its end then: what is returned has more than ``most``, and need not be its own.

        Raises:
            RequestError: the store has no tokenizer, the text is none, or it cannot be tokenised in pieces.
        """
        found: list[int] = []
        for part in self._parts(text, adds_special, most):
            found += part
            if most is not None and len(found) > most:
                break
        return found

    def encode_beginning(self, text: str, num_tokens: int) -> list[int]:
        """The first tokens of ``encode``, at most so many; the rest of a long text is not tokenised.

        Raises:
            RequestError: as of ``encode``.
        """
        found: list[int] = []
        for part in self._parts(text, True, None):
            found += part
            if len(found) >= num_tokens:
                break
        return found[:num_tokens]

    def encode_prompt(self, text: str, most: int | None = None) -> list[int]:
        """As ``encode``, but a text that brings its own first token gets no second one.

        Rendered templates do; models that read it twice answer worse.
        """
        found = self.encode(text, most=most)
        return found[1:] if len(found) > 1 and found[0] == found[1] == self.bos_id else found

    def _parts(self, text: str, adds_special: bool, most: int | None) -> Iterator[list[int]]:
        """The tokens of a text, piece by piece; see ``encode``."""
        _check_text(text)
        self._require()
        with OneLineErrors(RequestError, "the text cannot be tokenised"):
            yield from encode_in_parts(text, self._encode, adds_special, most)

    def _encode(self, text: str, adds_special: bool = False) -> list[int]:
        return list(self._require().encode(text, add_special_tokens=adds_special).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out; sentinels, which T5 answers with, are kept."""
        return self.decode_shown([token for token in ids("the text", token_ids) if self.shows(token)])

    def decode_shown(self, token_ids: Sequence[int]) -> str:
        """Text of ids that need no check and are all to be shown: a stream asks for it with each token."""
        with OneLineErrors(RequestError, "the tokens cannot be decoded"):
            decoding = self._decoding or Decoding(self._require(), ())  # which refuses where there is none
            text = decoding(token_ids)
        return tidy(text) if self._is_tidied else text

    def decode_all(self, token_ids: Sequence[int]) -> str:
        """Text of token ids, special tokens written out: by them models mark thoughts and calls."""
        return self.decode_shown(ids("the text", token_ids))

    def bytes_of(self, token_id: int) -> bytes:
        """What one token writes, special tokens written out: maybe a piece of a character. b"" without a
        tokenizer.
        """
        if self._token_bytes is None:
            return b""
        known = self._token_bytes.of(token_id)
        return self.decode_all([token_id]).encode() if known is None else known

    def shows(self, token_id: int) -> bool:
        """Whether ``decode`` gives a token's text: not of special and unused ones, sentinels apart."""
        return token_id not in self._silent_ids

    def render_chat(
        self,
        messages: Sequence[Message],
        /,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        continue_final_message: bool | str = False,
        **options: Any,
    ) -> str:
        """The conversation as the model expects it, up to where its answer begins.

        ``continue_final_message``: the answer goes on with the last message, which is left open; a name
        stands for another of its fields, such as ``reasoning_content``.
        ``options`` are what the template may ask for, such as ``enable_thinking``.

        Raises:
            RequestError: the checkpoint has no chat template, or it refuses the messages.
        """
        if not continue_final_message:
            return self._chats.render(messages, tools, documents, {"add_generation_prompt": True, **options})
        field = "content" if continue_final_message is True else str(continue_final_message)
        return self._chats.render_open(messages, tools, documents, options, field)

    def encode_chat(
        self,
        messages: Sequence[Message],
        /,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> list[int]:
        """Token ids of ``render_chat``; the template itself writes the special tokens."""
        return self.encode(self.render_chat(messages, tools, documents, **options), adds_special=False)

    def turn_end_ids(self) -> frozenset[int]:
        """Special tokens with which the template ends an assistant's turn."""
        after = self._chats.text_after_answer()
        first = self.encode(after, adds_special=False)[:1] if after else []
        return self._special_ids.intersection(first)

    def chat_templates(self) -> dict[str, str]:
        """The chat templates by name, "default" first; empty where the checkpoint has none.

        Raises:
            StoreError: a template's file cannot be read.
        """
        return self._chats.sources()

    def special_ids(self) -> dict[str, int]:
        """Special tokens by their text, which is one token wherever it stands."""
        if self._tokenizer is None:
            return {}
        added = self._tokenizer.get_added_tokens_decoder()
        return {str(added[token_id].content): token_id for token_id in sorted(self._special_ids)}

    def to_json(self) -> str:
        """The tokenizer as tokenizer.json would have it, with the tokens that stand in other files.

        It is as large as that file.

        Raises:
            RequestError: the store has no tokenizer.
        """
        return str(self._require().to_str())

    def _prepare(self, loaded: Loaded, added: SpecialTokens) -> None:
        """What transformers does to a tokenizer that it loads."""
        tokenizer = loaded.tokenizer
        tokenizer.encode_special_tokens = bool(self._settings.get("split_special_tokens", False))
        special = _special(tokenizer)
        if loaded.rules is None:
            tokenizer.add_tokens(added.missing_from(loaded.added))
        else:
            loaded.rules.add_tokens(tokenizer, added.with_listed(loaded.added), self._settings)
        special |= _special(tokenizer)
        self._special_ids = frozenset(special)
        sentinels = frozenset(i for i, text in special.items() if text.startswith(_T5_SENTINEL))
        self._silent_ids = (self._special_ids - sentinels) | self.unused_ids
        # Tidying would take spaces from the text of a BPE, whose tokens have their own.
        self._is_tidied = bool(self._settings.get(_TIDIES)) and (
            not isinstance(tokenizer.model, tokenizers.models.BPE) or bool(self._settings.get(_TIDIES_BPE))
        )
        decoder = tokenizer.decoder
        description = None if decoder is None else json.loads(decoder.__getstate__())
        steps = list(decoder_steps(description))
        self._token_bytes, self._decoding = TokenBytes(tokenizer, steps), Decoding(tokenizer, steps)
        byte_ids = (tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in range(256))
        self.reach = Reach(
            description, frozenset(i for i in byte_ids if i is not None), is_tidied=self._is_tidied
        )

    def _require(self) -> tokenizers.Tokenizer:
        if self._tokenizer is None:
            raise RequestError(
                f"{self._folder}: has no tokenizer.json, so it takes token ids only; copy the checkpoint's"
                " tokenizer.json beside config.json and convert again"
            )
        return self._tokenizer

    def _is_added(self, token_id: int) -> bool:
        """Whether an id is that of an added token; without a tokenizer it may be."""
        return self._tokenizer is None or token_id in self._tokenizer.get_added_tokens_decoder()

    def _id_of(self, name: str) -> frozenset[int]:
        text = self.special_tokens.get(name)
        if self._tokenizer is None or text is None:
            return frozenset()
        token_id = self.token_id(text)
        return frozenset() if token_id is None else frozenset([token_id])


def _special(tokenizer: tokenizers.Tokenizer) -> dict[int, str]:
    """Special tokens by id."""
    return {i: str(t.content) for i, t in tokenizer.get_added_tokens_decoder().items() if t.special}


def _check_text(text: str) -> None:
    if not isinstance(text, str):
        raise RequestError(f"the text is {type(text).__name__}; give it as str")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # bytes of a command line that are not UTF-8
        raise RequestError(f"the text is not UTF-8: {error.reason} at {error.start}") from None


def _load(path: Path, settings: Mapping[str, Any], config: Mapping[str, Any]) -> Loaded | None:
    if not path.is_file():
        return None
    text = read_text_file(path)
    with OneLineErrors(StoreError, f"{path}: not a tokenizer"):
        return load_tokenizer(text, settings, config)
