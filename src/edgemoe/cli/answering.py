"""The options that say how a model answers, and what is said of an answer: its settings, cost and end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any

from edgemoe.cli.given import as_utf8
from edgemoe.cli.options import unset
from edgemoe.cli.output import say
from edgemoe.errors import RequestError

if TYPE_CHECKING:
    from edgemoe.api import Generation, Model

_MODELS_OWN = "[default: the model's own, else {}]"


def _own(value: object) -> str:
    return _MODELS_OWN.format(value)


TemplateOption = Annotated[
    list[str] | None,
    unset(
        "--template-option",
        "NAME=VALUE",
        "Value for the chat template, such as enable_thinking=false; can be repeated.",
    ),
]


@dataclass(frozen=True)
class AnswerArguments:
    """How answers are sampled and where they end. None: the option was not given."""

    max_tokens: Annotated[
        int | None,
        unset("--max-tokens", "N", "Most tokens of the answer.  [default: 256; in chat 1024]", min=1),
    ] = None
    temperature: Annotated[
        float | None,
        unset(
            "--temperature",
            "T",
            f"Randomness; 0 always takes the most likely token. {_own('0; in chat 0.7')}",
            min=0.0,
        ),
    ] = None
    top_k: Annotated[
        int | None,
        unset("--top-k", "K", f"Draw from the K most likely tokens; 0: from all. {_own(0)}", min=0),
    ] = None
    top_p: Annotated[
        float | None,
        unset(
            "--top-p",
            "P",
            f"Draw from the most likely tokens that together have this probability. {_own('1; in chat 0.9')}",
            min=0.0,
            max=1.0,
        ),
    ] = None
    min_p: Annotated[
        float | None,
        unset(
            "--min-p",
            "P",
            f"Leave out tokens less likely than this share of the most likely one. {_own(0)}",
            min=0.0,
            max=1.0,
        ),
    ] = None
    repetition_penalty: Annotated[
        float | None,
        unset(
            "--repetition-penalty",
            "X",
            f"Above 1, tokens that are already in the text become less likely. {_own(1)}",
            min=0.0,
        ),
    ] = None
    seed: Annotated[
        int | None,
        unset("--seed", "N", "The same seed gives the same answer.", min=0),
    ] = None
    stop: Annotated[
        list[str] | None,
        unset("--stop", "TEXT", "End the answer before this text; can be repeated."),
    ] = None

    def __post_init__(self) -> None:
        if self.stop and "" in self.stop:
            raise RequestError("--stop '': every answer has that; give some text")

    def options(self, model: Model, fallback: Mapping[str, Any]) -> dict[str, Any]:
        """Keyword arguments of ``Model.stream`` and its siblings: what was said, else the model's own values,
        else those of the command.
        """
        from edgemoe.engine.defaults import choose_sampling

        said = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        if "stop" in said:
            said["stop"] = tuple(as_utf8(text) for text in said["stop"])
        return {**fallback, **choose_sampling(said, model.sampling_defaults, fallback)}


def say_sampling(model: Model, options: Mapping[str, Any]) -> None:
    """On stderr: the sampling settings; nothing where the likeliest token is taken because nobody chose."""
    from edgemoe.engine.defaults import describe_sampling

    own = {name for name, value in model.sampling_defaults.items() if options.get(name) == value}
    if own or options.get("temperature"):
        origin = f" ({', '.join(sorted(own))} from the model's generation_config.json)" if own else ""
        say(f"sampling: {describe_sampling(options)}{origin}")


def status_line(generation: Generation) -> str:
    """What an answer cost, in one line."""
    from edgemoe.units import format_duration, format_size

    drafted = ""
    if generation.num_drafted:
        drafted = f"{generation.num_accepted} of {generation.num_drafted} drafted tokens accepted, "
    asked = generation.expert_hits + generation.expert_misses
    hit_share = f"{generation.expert_hits / asked:.0%}" if asked else "no"
    far, near = generation.far_bytes, generation.tier_bytes
    origin = (
        f" ({format_size(far)} over the network, {format_size(near)} from the tier)" if far or near else ""
    )
    count = len(generation.token_ids)
    speed = f"{generation.decode_tokens_per_s:.1f} tokens/s, " if count > 1 else ""
    return (
        f"[{count} token{'' if count == 1 else 's'}, {speed}"
        f"first after {format_duration(generation.time_to_first_token_s)}, "
        f"{drafted}{hit_share} cache hits, {format_size(generation.bytes_read)} read{origin}, "
        f"{format_size(generation.peak_rss_bytes)} of {format_size(generation.budget_bytes)} used]"
    )


def why_cut(model: Model, generation: Generation, max_tokens: int) -> str | None:
    """What cut an answer before its end, and what takes more; None if nothing did."""
    if generation.finish_reason != "length":
        return None
    if len(generation.token_ids) >= max_tokens:
        count = "1 token" if max_tokens == 1 else f"{max_tokens} tokens"
        return f"the answer was cut after {count}; --max-tokens takes more"
    most = model.spec.max_context
    longer = f"; --context takes up to {most}" if model.memory.context < most else ""
    return f"the context of {model.memory.context} tokens is full{longer}"
