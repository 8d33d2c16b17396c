"""A store as a model of lm-evaluation-harness (``pip install 'edgemoe[eval]'``), for any of its tasks.

    python -m edgemoe.integrations.lm_eval --model edgemoe --model_args store=olmoe.store,memory=4GiB \
        --tasks arc_easy

is the command ``lm_eval`` with this model added; the harness has no way to find models of other packages by
itself. In Python, importing this module registers it. Model arguments are those of :func:`edgemoe.load`, and
``max_gen_toks``. One request at a time: ``--batch_size`` is refused.

Texts are tokenized, begun and cut as by the harness's own backend ``hf``, so that scores can be compared.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
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
# Names that tasks use for the longest answer; of several the first counts, as in the harness.
_MOST = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")

Tokenized = tuple[tuple[str, str], list[int], list[int]]
_log = logging.getLogger(__name__)


@register_model("edgemoe")
class EdgeMoELM(TemplateLM):  # type: ignore[misc]
    """A loaded store that scores and continues texts for the harness."""

    def __init__(
        self, store: str, max_gen_toks: int = DEFAULT_MAX_TOKENS, batch_size: object = 1, **options: Any
    ) -> None:
        """Load a store; options as of :func:`edgemoe.load`.

        Raises:
            RequestError: an option is unknown, a batch size above 1, or a model with an encoder.
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
        if self._model.spec.has_encoder:
            self._model.close()
            raise RequestError(f"{store}: the harness adapter runs decoders; `edgemoe eval` scores this one")
        self._max_tokens = int(max_gen_toks)

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        eos = self._model.tokenizer.eos_id
        if eos is None:
            raise RequestError("the store names no token that ends a text, which the harness needs")
        return eos

    @property
    def prefix_token_id(self) -> int:
        """What a text without context begins with: the token for it, or else the one that ends texts."""
        bos = self._model.tokenizer.bos_id
        return self.eot_token_id if bos is None else bos

    @property
    def max_length(self) -> int:
        """Longest text, in tokens."""
        return self._model.memory.context

    @property
    def tokenizer_name(self) -> str:
        """Tells cached requests of one tokenizer from those of another."""
        return f"edgemoe:{self._model.spec.family}:{self._model.spec.vocab_size}"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids of a text; None adds special tokens unless the text itself begins with one."""
        tokenizer = self._model.tokenizer
        if add_special_tokens is None:
            bare = tokenizer.encode(string, adds_special=False)
            add_special_tokens = bare[:1] != [self.prefix_token_id]
        return tokenizer.encode(string, adds_special=add_special_tokens)

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Name of the template for the harness's records; it is the store's own."""
        return "store" if chat_template else ""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A conversation as the model expects it, up to where its answer begins or goes on.

        Where the template refuses it, it is rendered without what has the role "system".

        Raises:
            RequestError: the store has no template, or that refuses the rest too.
        """
        render = partial(self._model.tokenizer.render_chat, continue_final_message=not add_generation_prompt)
        try:
            return render(chat_history)
        except RequestError as error:
            rest = [message for message in chat_history if message.get("role") != "system"]
            if len(rest) == len(chat_history):
                raise
            _log.warning("%s; what has the role system is left out", error)
            return render(rest)

    def _loglikelihood_tokens(
        self, requests: list[Tokenized], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        return [self._score(context, continuation) for _, context, continuation in requests]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of whole texts after the prefix token, in windows of the context.

        The prefix comes once. Backend ``hf`` of the harness also scores a second one where the tokenizer adds
        it (lm-evaluation-harness issue 3333); with ``add_bos_token=False`` it agrees.
        """
        totals = []
        for request in requests:
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0], add_special_tokens=False),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            totals.append(sum(self._score(*make_disjoint_window(window))[0] for window in windows))
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continue texts until one of the request's stops.

        Raises:
            RequestError: an option is unknown, or the answer may be as long as the context.
        """
        return [self._continue(*request.args) for request in requests]

    def _continue(self, prompt: str, wanted: Mapping[str, Any]) -> str:
        options = {name: value for name, value in wanted.items() if value is not None}
        until = options.pop("until", [])
        name, max_tokens = next(
            ((name, int(options[name])) for name in _MOST if name in options),
            ("max_gen_toks", self._max_tokens),
        )
        sampling = {name: options[name] for name in _SAMPLING if name in options}
        if not options.get("do_sample", sampling.get("temperature", 0.0) > 0):
            sampling = {**sampling, "temperature": 0.0}
        unknown = sorted(options.keys() - {*_MOST, *_SAMPLING, "do_sample"})
        if unknown:
            raise RequestError(f"generation_kwargs: edgemoe has no {', '.join(unknown)}")
        room = self.max_length - max_tokens
        if room < 1:
            raise RequestError(
                f"{name}={max_tokens} leaves no room for a prompt in the context of {self.max_length} tokens;"
                " load with a larger context= or ask for less"
            )
        ids = self.tok_encode(prompt)
        self._say_if_cut(len(ids), room, f"a prompt, beside {name}={max_tokens}")
        stop = [text for text in ([until] if isinstance(until, str) else until) if text]
        return self._model.generate(ids[-room:], max_tokens=max_tokens, stop=stop, **sampling).text

    def _score(self, context: Sequence[int], continuation: Sequence[int]) -> tuple[float, bool]:
        """Log-probability of a continuation, and whether greedy decoding would give it.

        If a context does not fit, its beginning is dropped. The last token is predicted, not fed.

        Raises:
            RequestError: the continuation alone is longer than the model's context.
        """
        if len(continuation) > self.max_length:
            raise RequestError(
                f"a continuation of {len(continuation)} tokens does not fit the context of"
                f" {self.max_length}; load with a larger context="
            )
        room = self.max_length + 1 - len(continuation)
        self._say_if_cut(len(context), room, f"the context of {len(continuation)} tokens to be scored")
        total, is_greedy, position = 0.0, True, 0
        for rows in self._model.engine.session.answer_logits(context[-room:], continuation):
            for row in rows:
                total += log_probability(row, continuation[position])
                is_greedy &= int(np.argmax(row)) == continuation[position]
                position += 1
        return total, is_greedy

    def _say_if_cut(self, num_tokens: int, room: int, what: str) -> None:
        if num_tokens > room:
            _log.warning(
                "%s: only the last %d of %d tokens fit the context of %d; load with a larger context=",
                what,
                room,
                num_tokens,
                self.max_length,
            )


if __name__ == "__main__":
    cli_evaluate()
