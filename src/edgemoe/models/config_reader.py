"""Reads a configuration so that nothing in it is accepted and ignored.

Every key is required, optional, refused unless it has the one value we run, or known to have no effect
on inference. A key that nobody has read is an error that names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from edgemoe.errors import UnsupportedModelError

# Bookkeeping, training settings, and token ids (which the tokenizer reads).
HARMLESS_KEYS = frozenset(
    (
        *("architectures", "model_type", "dtype", "torch_dtype", "transformers_version", "use_cache"),
        *("initializer_range", "attention_dropout", "hidden_dropout", "router_aux_loss_coef"),
        *("router_jitter_noise", "output_router_logits", "gradient_checkpointing", "pretraining_tp"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "unk_token_id"),
        *("_name_or_path", "name_or_path", "_from_model_config", "auto_map", "id2label", "label2id"),
        *("output_attentions", "output_hidden_states", "return_dict", "chunk_size_feed_forward"),
        *("problem_type", "tokenizer_class", "_attn_implementation", "_attn_implementation_autoset"),
        *("experts_implementation", "_experts_implementation"),
    )
)


class ConfigReader:
    """One configuration being read; ``finish`` complains of what is left."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._read: set[str] = set()

    def optional(self, key: str, default: Any, *aliases: str) -> Any:
        """The value of the first of these keys that is there and not null, else ``default``."""
        self._read.update((key, *aliases))
        for name in (key, *aliases):
            if self._config.get(name) is not None:
                return self._config[name]
        return default

    def require(self, key: str, *aliases: str) -> Any:
        """The value of a key that must be there.

        Raises:
            UnsupportedModelError: it is not.
        """
        value = self.optional(key, None, *aliases)
        if value is None:
            raise UnsupportedModelError(f"config.json: {key} is missing")
        return value

    def require_size(self, key: str, *aliases: str) -> int:
        """A positive integer that must be there."""
        value = self.require(key, *aliases)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UnsupportedModelError(f"config.json: {key} is {value!r}, not a positive integer")
        return value

    def refuse(self, key: str, unless: Iterable[Any], why: str) -> None:
        """Refuse a key whose value is there and not one of ``unless``."""
        value = self.optional(key, None)
        if value is not None and value not in tuple(unless):
            raise UnsupportedModelError(f"config.json: {key} = {value!r} is not supported: {why}")

    def finish(self) -> None:
        """Complain of keys that nobody has read.

        Raises:
            UnsupportedModelError: naming them.
        """
        left = sorted(set(self._config) - self._read - HARMLESS_KEYS)
        left = [key for key in left if self._config[key] not in (None, False, [], {})]
        if left:
            raise UnsupportedModelError(
                f"config.json: {self._config.get('model_type')} is not known to have {', '.join(left)};"
                " running without it could give wrong text"
            )
