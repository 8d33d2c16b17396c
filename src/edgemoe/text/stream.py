"""Decoding while tokens arrive: what is shown, piece by piece, is the whole decode.

With a prompt, the pieces are what the decode of prompt and answer has beyond that of the prompt; a word that
follows a prompt without a space at its end so keeps its space. Text is shown as soon as no later token can
change it:

* the bytes of an unfinished character wait for the rest;
* a run of byte tokens ("<0xE6>") is decoded as a whole, so it waits for its end;
* what is decoded by a rule that reaches over several tokens waits for the end of the answer.

A stop text is shown as soon as it is there, as it then ends the answer.

Only a few tokens of context are kept, so a long answer costs no more per token than a short one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any, Protocol

from edgemoe.text.stops import StopScanner

_REPLACEMENT = "\ufffd"
# Tokens of a prompt that are tried as context first; doubled until they suffice.
_NUM_CONTEXT = 8
# Tokens that are kept before the fewest that matter are looked for: looking takes as long as decoding them.
_MOST_KEPT = 4
# transformers tidies spaces by ten rules, one after the other; together they reach back so many characters.
_TIDY_REACH = 32


class Decodes(Protocol):
    """What a stream needs of a tokenizer."""

    @property
    def reach(self) -> Reach:
        """How far its decoder's rules reach."""
        ...

    def decode_shown(self, token_ids: Sequence[int]) -> str:
        """Text of tokens that ``shows`` names."""
        ...

    def shows(self, token_id: int) -> bool:
        """Whether a token is decoded at all."""
        ...


class Reach:
    """How far the rules of a decoder reach, read from its description in tokenizer.json.

    ``is_run(token_id)``: the token is a byte of a run. ``is_local``: no rule but that of runs looks at more
    than the neighbouring token. ``num_held``: characters at the end that a later token may change.
    """

    def __init__(self, decoder: Any, byte_ids: frozenset[int], *, is_tidied: bool) -> None:
        steps = list(decoder_steps(decoder))
        self._byte_ids = byte_ids if any(s.get("type") == "ByteFallback" for s in steps) else frozenset()
        self.is_local = _is_local(steps)
        self.num_held = _TIDY_REACH if is_tidied else 0

    def is_run(self, token_id: int) -> bool:
        """Whether a token is a byte of a run that is decoded as a whole."""
        return token_id in self._byte_ids


class StreamDecoder:
    """Turns tokens into text as they arrive, in whole characters only."""

    def __init__(self, tokenizer: Decodes, prompt_ids: Sequence[int] = (), stops: Sequence[str] = ()) -> None:
        """``stops``: texts that end the answer."""
        self._tokenizer = tokenizer
        self._scanner = StopScanner(stops)
        self._reach = tokenizer.reach
        self._ids = self._prompt_context(prompt_ids)
        self._shown = tokenizer.decode_shown(self._ids) if self._ids else ""

    def push(self, token_id: int) -> str:
        """Text that this token completes; empty while a character is unfinished."""
        if not self._tokenizer.shows(token_id):
            return ""
        self._ids.append(token_id)
        text = self._certain(token_id)
        if not self._scanner.has_stops:
            return text
        self._scanner.push(text)
        may_wait = not text or self._reach.num_held > 0
        return text + self._stopping() if may_wait else text

    def _certain(self, token_id: int) -> str:
        """Text beyond what was shown that no later token can change."""
        if not self._reach.is_local or self._reach.is_run(token_id):
            return ""
        text = self._tokenizer.decode_shown(self._ids)
        if text.endswith(_REPLACEMENT):
            return ""
        end = max(len(text) - self._reach.num_held, 0)
        new = self._new(text[:end])
        if len(self._ids) > _MOST_KEPT and new and not self._reach.num_held:
            self._forget()
        return new

    def flush(self) -> str:
        """What is left when no more tokens come."""
        return self._new(self._tokenizer.decode_shown(self._ids))

    def _stopping(self) -> str:
        """All that waits, but for an unfinished character, if that completes a stop text."""
        text = self._tokenizer.decode_shown(self._ids).rstrip(_REPLACEMENT)
        is_more = len(text) > len(self._shown) and text.startswith(self._shown)
        if not is_more or not self._scanner.would_stop(text[len(self._shown) :]):
            return ""
        new = self._new(text)
        self._scanner.push(new)
        return new

    def _new(self, text: str) -> str:
        """What ``text`` has beyond what was shown.

        What was shown is its beginning, except where the prompt was cut inside a character.
        """
        if not text.startswith(self._shown):
            if len(text) < len(self._shown):
                return ""
            self._shown = "".join(a for a, _ in takewhile(_is_alike, zip(self._shown, text, strict=False)))
        new = text[len(self._shown) :]
        self._shown = text
        return new

    def _forget(self) -> None:
        """Keep the fewest tokens that decode to some text: rules at the beginning of a text end there."""
        for count in range(1, len(self._ids)):
            kept = self._ids[-count:]
            text = self._tokenizer.decode_shown(kept)
            if text and not self._reach.is_run(kept[0]):
                self._ids, self._shown = kept, text
                return

    def _prompt_context(self, prompt_ids: Sequence[int]) -> list[int]:
        """The end of the prompt that decides how the answer begins."""
        shown = [token_id for token_id in prompt_ids if self._tokenizer.shows(token_id)]
        if not self._reach.is_local:
            return shown
        count = _NUM_CONTEXT
        while count < len(shown):
            context = shown[-count:]
            if not self._reach.is_run(context[0]) and self._tokenizer.decode_shown(context):
                return context
            count *= 2
        return shown


def _is_alike(pair: tuple[str, str]) -> bool:
    return pair[0] == pair[1]


def decoder_steps(decoder: Any) -> Iterator[dict[str, Any]]:
    """The single decoders of a description, sequences taken apart."""
    if not isinstance(decoder, dict):
        return
    if decoder.get("type") == "Sequence":
        for part in decoder.get("decoders", ()):
            yield from decoder_steps(part)
    else:
        yield decoder


def _is_local(steps: list[dict[str, Any]]) -> bool:
    """Whether no replacement looks across tokens, which it does once they are joined."""
    is_joined = False
    for step in steps:
        kind = step.get("type")
        if kind == "Replace" and is_joined and len(step.get("pattern", {}).get("String", "")) != 1:
            return False
        is_joined |= kind in ("Fuse", "ByteLevel")
    return True
