"""A store as a model of lm-evaluation-harness (``pip install 'edgemoe[eval]'``), for any of its tasks.

    python -m edgemoe.integrations.lm_eval --model edgemoe --model_args store=olmoe.store,memory=4GiB \
        --tasks arc_easy

is the command ``lm_eval`` with this model added; the harness has no way to find models of other packages by
itself. In Python, importing this module registers it. Model arguments are those of :func:`edgemoe.load`, and
``max_gen_toks``. One request at a time: ``--batch_size`` is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from lm_eval.__main__ import cli_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

import edgemoe
from edgemoe.engine.perplexity import log_probability
from edgemoe.errors import RequestError

DEFAULT_MAX_TOKENS = 256
# The harness passes these to every model; what they mean elsewhere has no meaning here.
_IGNORED = ("device", "max_batch_size")

Tokenized = tuple[tuple[str, str], list[int], list[int]]


@register_model("edgemoe")
class EdgeMoELM(TemplateLM):  # type: ignore[misc]
    """A loaded store that scores and continues texts for the harness."""

    def __init__(
        self, store: str, max_gen_toks: int = DEFAULT_MAX_TOKENS, batch_size: object = 1, **options: Any
    ) -> None:
        """Load a store; options as of :func:`edgemoe.load`.

        Raises:
            RequestError: an option is unknown, or a batch size above 1.
            BudgetError, StoreError: the store cannot be run.
        """
        super().__init__()
        if str(batch_size) != "1":
            raise RequestError(f"batch_size={batch_size}: edgemoe runs one text at a time; leave it out")
        options = {name: value for name, value in options.items() if name not in _IGNORED}
        try:
            self._model = edgemoe.load(store, **options)
        except TypeError as error:
            raise RequestError(f"model_args: {error}; see the arguments of edgemoe.load") from error
        self._max_tokens = max_gen_toks

    @property
    def eot_token_id(self) -> int:
        """What a text without context begins with."""
        return min(self._model.tokenizer.stop_ids)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids of a text."""
        return self._model.tokenizer.encode(string)

    def _loglikelihood_tokens(
        self, requests: list[Tokenized], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        return [self._score(context, continuation) for _, context, continuation in requests]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of whole texts, in windows of the context."""
        totals = []
        for request in requests:
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self._model.memory.context - 1,
                context_len=1,
            )
            totals.append(sum(self._score(*make_disjoint_window(window))[0] for window in windows))
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continue texts until one of the request's stops."""
        answers = []
        for request in requests:
            prompt, wanted = request.args
            until = wanted.get("until") or []
            max_tokens = int(wanted.get("max_gen_toks", self._max_tokens))
            kept = self.tok_encode(prompt)[-(self._model.memory.context - max_tokens) :]
            answer = self._model.generate(
                kept,
                max_tokens=max_tokens,
                temperature=float(wanted.get("temperature", 0.0)) if wanted.get("do_sample") else 0.0,
                stop=[until] if isinstance(until, str) else until,
            )
            answers.append(answer.text)
        return answers

    def _score(self, context: Sequence[int], continuation: Sequence[int]) -> tuple[float, bool]:
        """Log-probability of a continuation, and whether greedy decoding would give it.

        Of what does not fit the context, the beginning is dropped.
        """
        ids = [*context, *continuation][-self._model.memory.context :]
        first = len(ids) - len(continuation)
        total, is_greedy, position = 0.0, True, first
        for rows in self._model.engine.session.logits(ids, first - 1):
            for row in rows[: len(ids) - position]:
                total += log_probability(row, ids[position])
                is_greedy &= int(np.argmax(row)) == ids[position]
                position += 1
        return total, is_greedy


if __name__ == "__main__":
    cli_evaluate()
