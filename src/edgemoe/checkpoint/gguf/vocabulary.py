"""The vocabulary of a GGUF file: its tokens, what kind each is, and which have a role.

Ids and kinds that the file leaves out, and tokens that end an answer though no key says so, are those that
llama.cpp takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemoe.errors import CheckpointError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
# A vocabulary has no longer token; all ways to cut one are looked at.
_MAX_TOKEN_CHARACTERS = 4096
_ROLES = (
    "bos",
    "eos",
    "eot",
    "eom",
    "unknown",
    "seperator",
    "padding",
    "mask",
    "fim_pad",
    "fim_rep",
    "fim_sep",
)
# Roles of tokens after which nothing follows: what is filled in is over at the last three.
_END_ROLES = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")
# Ids of files of SentencePiece vocabularies that do not say them.
_SENTENCE_PIECE_IDS = {"bos": 1, "eos": 2, "unknown": 0}
# Tokens that end an answer or a turn, whatever the file says of them.
_ENDS = frozenset(
    ("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>",
     "<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]",
     "<|end_of_text|>",
     "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[",
     "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]",
     "<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>")
)  # fmt: skip
# Parts of an answer of gpt-oss, which a program that takes it apart has to see.
_SHOWN = frozenset(("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"))


@dataclass(frozen=True)
class Vocabulary:
    """``kinds`` and ``scores`` are as long as ``tokens``, ``scores`` may be empty. ``ids``: by role."""

    tokens: list[str]
    kinds: list[int]
    scores: list[float]
    ids: Mapping[str, int]

    def text(self, role: str) -> str | None:
        """The token that has a role, if one has."""
        return self.tokens[self.ids[role]] if role in self.ids else None

    def end_ids(self) -> list[int]:
        """Tokens that end an answer, sorted."""
        found = {self.ids[role] for role in _END_ROLES if role in self.ids}
        by_text = {token: i for i, token in enumerate(self.tokens) if token in _ENDS}
        found |= set(by_text.values())
        texts = {self.tokens[i] for i in found}
        # "<|end|>" ends a part of an answer where other tokens end the whole.
        is_in_parts = {"<|return|>", "<|call|>"} <= texts or (
            "<|flush|>" in texts and bool(texts & {"<|call|>", "<|calls|>"})
        )
        if is_in_parts and "<|end|>" in by_text:
            found.discard(by_text["<|end|>"])
        if texts & {"<|tool_response>", "<|plamo:eos|>"} and "</s>" in by_text:
            found.discard(by_text["</s>"])
        return sorted(found)


def read_vocabulary(metadata: Mapping[str, Any], path: Path) -> Vocabulary:
    """The vocabulary of a file that has one.

    Raises:
        CheckpointError: lists are missing, of another length or not of their kind.
    """
    tokens = _list(metadata, "tokens", path, str)
    if not tokens:
        raise CheckpointError(
            f"{path}: key tokenizer.ggml.tokens is missing; put the model's tokenizer.json beside it"
        )
    kinds = _list(metadata, "token_type", path, int) or [NORMAL] * len(tokens)
    scores = [float(score) for score in _list(metadata, "scores", path, (int, float))]
    if not all(map(math.isfinite, scores)):
        raise CheckpointError(f"{path}: tokenizer.ggml.scores has what is no number; fetch the file again")
    for name, values in (("token_type", kinds), ("scores", scores)):
        if values and len(values) < len(tokens):
            raise CheckpointError(
                f"{path}: tokenizer.ggml.{name} has {len(values)} entries for {len(tokens)} tokens"
            )
    longest = max(range(len(tokens)), key=lambda i: len(tokens[i]))
    if len(tokens[longest]) > _MAX_TOKEN_CHARACTERS:
        raise CheckpointError(
            f"{path}: token {longest} has {len(tokens[longest])} characters; no vocabulary has one so long"
        )
    ids = _ids(metadata, tokens, path)
    texts, kinds = _distinct(tokens, kinds[: len(tokens)])
    vocabulary = Vocabulary(texts, kinds, scores[: len(tokens)], ids)
    return Vocabulary(texts, _kinds_by_text(vocabulary), vocabulary.scores, ids)


def _list(metadata: Mapping[str, Any], name: str, path: Path, kind: Any) -> list[Any]:
    values = metadata.get(f"tokenizer.ggml.{name}", [])
    if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
        raise CheckpointError(f"{path}: tokenizer.ggml.{name} is no list of its kind; fetch the file again")
    return values


def _ids(metadata: Mapping[str, Any], tokens: list[str], path: Path) -> dict[str, int]:
    ids = dict(_SENTENCE_PIECE_IDS) if metadata.get("tokenizer.ggml.model") == "llama" else {}
    for role in _ROLES:
        key = f"tokenizer.ggml.{role}_token_id"
        token_id = metadata.get(key)
        if token_id is not None and (isinstance(token_id, bool) or not isinstance(token_id, int)):
            raise CheckpointError(f"{path}: {key} is {token_id!r:.60}, no token id; fetch the file again")
        # One beyond the vocabulary, or below 0, says that there is none.
        if token_id is not None and 0 <= token_id < len(tokens):
            ids[role] = token_id
    return {role: token_id for role, token_id in ids.items() if token_id < len(tokens)}


def _distinct(tokens: list[str], kinds: list[int]) -> tuple[list[str], list[int]]:
    """Empty tokens and all but the last of equal ones get names that no text has."""
    last = {token: i for i, token in enumerate(tokens)}
    texts, own = [], []
    for i, token in enumerate(tokens):
        is_own = token != "" and last[token] == i
        texts.append(token if is_own else f"[EMPTY_{i}]" if token == "" else f"[TWICE_{i}]")
        own.append(kinds[i] if is_own else UNUSED)
    return texts, own


def _kinds_by_text(vocabulary: Vocabulary) -> list[int]:
    """Kinds, with what the texts of some tokens say."""
    kinds = list(vocabulary.kinds)
    ends = set(vocabulary.end_ids())
    for i, token in enumerate(vocabulary.tokens):
        if token in _SHOWN or (token == "<|end|>" and i not in ends):
            kinds[i] = USER_DEFINED
        elif i in ends:
            kinds[i] = CONTROL
    for role in ("bos", "eos"):
        if role in vocabulary.ids:
            kinds[vocabulary.ids[role]] = CONTROL
    return kinds
