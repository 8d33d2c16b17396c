"""The public face: ``load`` a store within a budget, then generate, stream, chat, score.

    with edgemoe.load("qwen.store", memory="2GiB") as model:
        for chunk in model.stream("Once upon a time", max_tokens=64):
            print(chunk.text, end="")

Any number of threads may use one Model, each with as many answers under way as it likes: their steps take
turns, and what an answer says does not depend on what else is going on. ``async for`` works as well:

    async for chunk in model.astream("Once upon a time"):
        print(chunk.text, end="")
"""

from edgemoe.api.loading import find_draft, load, set_num_threads
from edgemoe.api.model import Model
from edgemoe.engine.answer import Chunk, Generation
from edgemoe.engine.async_stream import AsyncStream
from edgemoe.engine.generation import Stream
from edgemoe.engine.pairs import Pair, PairScore
from edgemoe.engine.perplexity import Score
from edgemoe.engine.requests import AnswerOptions
from edgemoe.engine.sampling import Constraint, Sampling, TokenLogprob
from edgemoe.engine.stats import Stats

__all__ = [
    "AnswerOptions",
    "AsyncStream",
    "Chunk",
    "Constraint",
    "Generation",
    "Model",
    "Pair",
    "PairScore",
    "Sampling",
    "Score",
    "Stats",
    "Stream",
    "TokenLogprob",
    "find_draft",
    "load",
    "set_num_threads",
]
