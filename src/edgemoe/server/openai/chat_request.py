"""The body of ``POST /v1/chat/completions`` as our request, and what chat and completions share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgemoe.server.failures import refused
from edgemoe.server.fields import Fields, counts_each
from edgemoe.server.messages import MAX_MESSAGES
from edgemoe.server.openai.chat_messages import read_messages
from edgemoe.server.options import Limits
from edgemoe.server.request import AnswerRequest, Draw
from edgemoe.server.tools import check_schema_size, chosen_tools, loose_names, read_tools

MAX_TOKENS = 1 << 24
MAX_TOP_LOGPROBS = 20
# Sent by every client, without a meaning here.
HARMLESS = [
    "user",
    "store",
    "metadata",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "prediction",
    "verbosity",
    "stream",
    "stream_options",
    "return_progress",
    "cache_prompt",
    "timings_per_token",
    "ignore_eos_text",
    "add_generation_prompt",
]
NOT_TEXT = "the models of this server read and write text only"
OTHER_SAMPLERS: dict[str, Sequence[Any]] = {
    "mirostat": (0,),
    "typical_p": (1, 1.0),
    "tfs_z": (1, 1.0),
    "dry_multiplier": (0, 0.0),
    "xtc_probability": (0, 0.0),
    "dynatemp_range": (0, 0.0),
    "top_n_sigma": (-1, -1.0),
    "use_beam_search": (False,),
    "best_of": (1,),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "length_penalty": (1, 1.0),
    "grammar": ("",),
    "guided_json": (),
    "guided_regex": (),
    "guided_grammar": (),
    "guided_choice": (),
    "structured_outputs": (),
    "bad_words": ([],),
    "allowed_token_ids": ([],),
    "logits_processors": ([],),
    "include_stop_str_in_output": (False,),
    "truncate_prompt_tokens": (),
    "prompt_embeds": (),
    "chat_template": (),
    "documents": ([],),
    "stop_token_ids": ([],),
}


def read_chat(body: Mapping[str, Any], limits: Limits) -> AnswerRequest:
    """The request of a chat completion.

    Raises:
        Failure: naming the field that is wrong or that we do not act on.
    """
    fields = Fields(body)
    fields.refuse({"modalities": (["text"],), "audio": (), "web_search_options": ()}, NOT_TEXT)
    fields.refuse({"moderation": ()}, "nothing here judges texts")
    fields.refuse({"functions": ([],), "function_call": ("none", "auto")}, "use tools and tool_choice")
    fields.refuse({"echo": (False,), "add_special_tokens": (False,)}, "it would change the answer")
    refuse_other_samplers(fields)
    tools, tool_choice = chosen_tools(read_tools(fields, limits), fields.get("tool_choice"))
    model, messages = fields.needed_text("model"), read_messages(fields)
    logprobs, num_top = fields.flag("logprobs"), fields.integer("top_logprobs", 0, MAX_TOP_LOGPROBS)
    if num_top and not logprobs:
        raise fields.fail("top_logprobs", "needs logprobs: true")
    request = AnswerRequest(
        model=model,
        messages=messages,
        tools=tools,
        loose_tools=loose_names(fields.items("tools", limits.num_tools)),
        tool_choice=tool_choice,
        allows_parallel_calls=fields.flag("parallel_tool_calls", True),
        schema=read_response_format(fields, limits),
        template_options=_read_thinking(fields) | read_template_options(fields),
        continues_last=fields.flag("continue_final_message") or _is_prefix(fields),
        max_tokens=read_max_tokens(fields, "max_completion_tokens", "max_tokens", "n_predict"),
        draw=read_draw(fields),
        stop=fields.texts("stop", limits.num_stops, limits.stop_chars),
        shows_special=not fields.flag("skip_special_tokens", True),
        num_choices=fields.integer("n", 1, limits.num_choices) or 1,
        num_top_logprobs=(num_top or 0) if logprobs else None,
        reports_progress=fields.flag("return_progress"),
        counts_each=counts_each(fields),
    )
    return with_ignored(request, fields, HARMLESS)


def _is_prefix(fields: Fields) -> bool:
    """Whether the last message says, as some APIs have it, that the answer goes on with it."""
    last = fields.items("messages", MAX_MESSAGES)[-1]
    return Fields(last, fields.name("messages[-1]")).flag("prefix")


def with_ignored(request: AnswerRequest, fields: Fields, harmless: Sequence[str]) -> AnswerRequest:
    """The request with the names of fields that nobody read and that are not known to be harmless."""
    from dataclasses import replace

    return replace(request, ignored_fields=tuple(set(fields.unread()) - set(harmless)))


def refuse_other_samplers(fields: Fields) -> None:
    """Refuse ways of drawing that other servers have, unless they are switched off."""
    fields.refuse(OTHER_SAMPLERS, "it would change the answer; leave it out")


def read_max_tokens(fields: Fields, *names: str) -> int | None:
    """The longest answer, by whichever of its names is set; -1 is some clients' word for no limit."""
    found = None
    for name in names:
        if fields.get(name) == -1:
            continue
        value = fields.integer(name, 1, MAX_TOKENS)
        found = value if found is None else found
    return found


def read_draw(fields: Fields) -> Draw:
    """How tokens are drawn."""
    repetition = fields.number("repetition_penalty", 0.01, 100)
    if repetition is None:
        repetition = fields.number("repeat_penalty", 0.01, 100)
    top_k = fields.integer("top_k", -1, MAX_TOKENS)
    return Draw(
        temperature=fields.number("temperature", 0, 100),
        top_k=None if top_k is None else max(0, top_k),
        top_p=read_top_p(fields),
        min_p=fields.number("min_p", 0, 1),
        repetition_penalty=repetition,
        presence_penalty=fields.number("presence_penalty", -2, 2),
        frequency_penalty=fields.number("frequency_penalty", -2, 2),
        logit_bias=_read_bias(fields),
        seed=_read_seed(fields),
    )


def read_top_p(fields: Fields) -> float | None:
    """``top_p``; 0 is some clients' word for the likeliest token."""
    top_p = fields.number("top_p", 0, 1)
    return None if top_p is None else max(top_p, 1e-9)


def _read_seed(fields: Fields) -> int | None:
    seed = fields.integer("seed", -(1 << 63), (1 << 64) - 1)
    return None if seed is None or seed == -1 else seed % (1 << 63)


def _read_bias(fields: Fields) -> dict[int, float]:
    bias = fields.mapping("logit_bias")
    if len(bias) > 1024:
        raise fields.fail("logit_bias", "has more than 1024 tokens")
    read = Fields(bias, fields.name("logit_bias"))
    out: dict[int, float] = {}
    for token in bias:
        if not token.isascii() or not token.isdecimal() or len(token) > 9:
            raise read.fail(token, "the name must be a token's number")
        value = read.number(token, -100, 100)
        out[int(token)] = value or 0.0
    return out


def read_template_options(fields: Fields) -> dict[str, Any]:
    """Options of the chat template: what the client sets by name, and the effort of reasoning."""
    options = dict(fields.mapping("chat_template_kwargs"))
    reserved = options.keys() & {"messages", "tools", "documents", "add_generation_prompt"}
    if reserved:
        raise fields.fail("chat_template_kwargs", f"{min(reserved)} is not an option of the template")
    effort = fields.text("reasoning_effort")
    if effort is not None:
        options |= effort_options(effort, fields.name("reasoning_effort"))
    return options


def thinking_options(is_thinking: bool) -> dict[str, Any]:
    """The options by which templates know whether to think: families have one name or the other."""
    return {"enable_thinking": is_thinking, "thinking": is_thinking}


def _read_thinking(fields: Fields) -> dict[str, Any]:
    """Whether to think, and how much, in the words of other APIs of this protocol."""
    out: dict[str, Any] = {}
    reasoning, thinking = fields.inner("reasoning"), fields.get("thinking")
    if reasoning is not None and (effort := reasoning.text("effort")):
        out |= effort_options(effort, reasoning.name("effort"))
    if reasoning is not None and reasoning.get("enabled") is not None:
        out |= thinking_options(reasoning.flag("enabled"))
    if isinstance(thinking, bool):
        out |= thinking_options(thinking)
    elif (inner := fields.inner("thinking")) is not None:
        kind = inner.choice("type", ("enabled", "disabled", "adaptive", "auto"), "enabled")
        out |= thinking_options(kind != "disabled")
    if fields.get("enable_thinking") is not None:
        out |= thinking_options(fields.flag("enable_thinking"))
    return out


def effort_options(effort: str, name: str) -> dict[str, Any]:
    """The options by which templates know how much to think."""
    if effort not in {"none", "minimal", "low", "medium", "high", "xhigh", "max"}:
        raise refused(name, f"is {effort!r}; it must be none, minimal, low, medium, high, xhigh or max")
    if effort == "none":
        return thinking_options(False)
    return {"reasoning_effort": {"minimal": "low", "xhigh": "high", "max": "high"}.get(effort, effort)}


def read_response_format(fields: Fields, limits: Limits) -> Mapping[str, Any] | None:
    """The schema that the answer must follow.

    llama.cpp's server also takes one beside the type, without an object around it, and in a field of its own.
    """
    wanted, own = fields.inner("response_format"), fields.mapping("json_schema")
    kind = wanted.choice("type", ("text", "json_object", "json_schema")) if wanted else None
    if wanted is None or kind not in {"json_object", "json_schema"}:
        return _sized(own, fields.name("json_schema"), limits) if own else None
    inner = wanted.inner("json_schema") or wanted
    schema = inner.mapping("schema") or own
    if not schema and kind == "json_schema" and inner.get("schema") is None:
        raise inner.fail("schema", "is missing")
    if not schema and kind == "json_object":
        return {"type": "object"}
    return _sized(schema, inner.name("schema"), limits)


def _sized(schema: Mapping[str, Any], name: str, limits: Limits) -> Mapping[str, Any]:
    check_schema_size(schema, name, limits)
    return schema
