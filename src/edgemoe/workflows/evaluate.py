"""How well a store predicts a text, or answers prompts whose answers are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgemoe import arguments
from edgemoe.api import Model, Pair, PairScore, Score, load
from edgemoe.engine.memory import budget_note
from edgemoe.progress import ShowSteps, Tell, unheard, unseen
from edgemoe.workflows.measuring import check_text_options, window_within

MOST_ANSWERED = 128  # tokens of an answer


@dataclass(frozen=True)
class EvaluateOptions:
    """How a store is measured; checked when it is made.

    The model sees ``window`` tokens at once (by default 512, or its context). Of a text ``stride`` tokens are
    scored in each window (by default half of it), and only the first ``max_tokens`` of the text are used; of
    an answer at most so many are written, by default 128. ``memory`` and ``num_threads`` as in
    ``edgemoe.load``.

    Raises:
        RequestError: a number of tokens is none.
    """

    memory: str | int | None = None
    window: int | None = None
    stride: int | None = None
    max_tokens: int | None = None
    num_threads: int | None = None

    def __post_init__(self) -> None:
        check_text_options(self.max_tokens, self.window)
        if self.stride is not None:
            arguments.whole("stride", self.stride, 1)


def evaluate_text(
    store: str | Path,
    text: str,
    options: EvaluateOptions | None = None,
    *,
    steps: ShowSteps = unseen,
    tell: Tell = unheard,
) -> Score:
    """The perplexity of a text, by a sliding window.

    Raises:
        BudgetError, StoreError: as ``edgemoe.load``.
        RequestError: the text is too short, or window and stride do not fit.
    """
    options = options or EvaluateOptions()
    window = window_within(store, options.window)
    with _loaded(store, window, options, tell) as model, steps("reading the text", "tokens") as advance:
        tokenizer = model.tokenizer
        if options.max_tokens is None:
            token_ids = tokenizer.encode(text)
        else:
            token_ids = tokenizer.encode_beginning(text, options.max_tokens)
        return model.perplexity(token_ids, window=window, stride=options.stride, progress=advance)


def evaluate_pairs(
    store: str | Path,
    pairs: Sequence[Pair],
    options: EvaluateOptions | None = None,
    *,
    steps: ShowSteps = unseen,
    tell: Tell = unheard,
) -> PairScore:
    """Rouge-2 of what the model answers to prompts, and the perplexity of the right answers.

    Raises:
        BudgetError, StoreError: as ``edgemoe.load``.
        RequestError: rouge-score is not installed, or the window has no room for prompt and answer.
    """
    options = options or EvaluateOptions()
    window, max_tokens = window_within(store, options.window), options.max_tokens or MOST_ANSWERED
    with _loaded(store, window, options, tell) as model, steps("answering", "pairs") as advance:
        return model.score_pairs(pairs, max_tokens=max_tokens, progress=advance)


@contextmanager
def _loaded(store: str | Path, context: int, options: EvaluateOptions, tell: Tell) -> Iterator[Model]:
    with load(store, options.memory, context=context, num_threads=options.num_threads) as model:
        note = budget_note(model.memory, options.memory)
        if note is not None:
            tell(note)
        yield model
