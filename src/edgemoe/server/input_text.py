"""A text that a grammar of plain text holds, as a model writes it: as it is, or within a JSON string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from edgemoe.server.escaped_tokens import EscapedTokens

# Tokens need not be those into which a tokenizer would cut the text: it may end within one of these.
_ANY_TOKENS = '%llguidance {"no_forcing": true}\n'
Allowed = tuple[NDArray[np.bool_], bool]  # which tokens (V,) may come next, and whether the text may end


def trouble(matcher: LLMatcher) -> str:
    """Why a matcher cannot go on, without the state and the texts that its own words tell."""
    what = str(matcher.get_error()).partition("<state>")[0].strip()
    return "nothing is allowed here" if what == "NoExtensionBias" else what


class InputText(Protocol):
    """One text while it is written. Used by one thread at a time."""

    def allowed(self) -> Allowed:
        """What may come next."""

    def accept(self, token_id: int) -> None:
        """Take note of a token."""

    def error(self) -> str:
        """Why the grammar cannot be kept to; "" if it can."""


class PlainText:
    """A text as it is."""

    def __init__(self, tokens: LLTokenizer, stop_ids: Sequence[int], grammar: str) -> None:
        self._matcher = LLMatcher(tokens, _ANY_TOKENS + grammar, log_level=0)
        self._stop_ids = list(stop_ids)

    def allowed(self) -> Allowed:
        """See ``InputText``."""
        mask = np.frombuffer(self._matcher.compute_logit_bias(), np.uint8) != 0
        may_end = bool(mask[self._stop_ids].any())
        mask[self._stop_ids] = False
        return mask, may_end

    def accept(self, token_id: int) -> None:
        """See ``InputText``."""
        self._matcher.consume_token(token_id)

    def error(self) -> str:
        """See ``InputText``."""
        return trouble(self._matcher) if self._matcher.is_error() else ""


class EscapedText:
    """A text within a JSON string."""

    def __init__(self, tokens: EscapedTokens, grammar: str) -> None:
        self._tokens = tokens
        self._matcher = LLMatcher(tokens.tokens, _ANY_TOKENS + grammar, log_level=0)
        self._is_open = False  # a backslash stands before the next token

    def allowed(self) -> Allowed:
        """See ``InputText``."""
        return self._tokens.allowed(self._matcher, is_open=self._is_open)

    def accept(self, token_id: int) -> None:
        """See ``InputText``."""
        self._is_open = self._tokens.accept(self._matcher, token_id, is_open=self._is_open)

    def error(self) -> str:
        """See ``InputText``."""
        return trouble(self._matcher) if self._matcher.is_error() else ""
