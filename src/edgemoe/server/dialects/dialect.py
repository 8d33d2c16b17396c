"""Which family's manner of writing a chat template belongs to."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from edgemoe.server.dialects.deepseek import DEEPSEEK
from edgemoe.server.dialects.forms import (
    ForcedCall,
    Form,
    JsonForm,
    ListForm,
    Opening,
    PythonForm,
    QuotedForm,
    TaggedForm,
)
from edgemoe.server.dialects.gemma import GEMMA, QUOTE
from edgemoe.server.dialects.glm import GLM
from edgemoe.server.dialects.harmony import MARKS, HarmonyReader
from edgemoe.server.dialects.lfm2 import LFM2, as_text
from edgemoe.server.dialects.mistral import MISTRAL
from edgemoe.server.dialects.qwen import HERMES, QWEN_XML, hermes_text
from edgemoe.server.dialects.reader import AnswerReader, Call, Manner
from edgemoe.server.events import Reasoning, Text


class Reader(Protocol):
    """Reads one answer while its text arrives."""

    @property
    def is_thinking(self) -> bool:
        """Whether a thought is open."""

    @property
    def is_in_call(self) -> bool:
        """Whether a call is being read."""

    @property
    def held_space(self) -> str:
        """Whitespace that is text unless a call or a thought comes next."""

    def answer_of(self, raw: str) -> str:
        """What stands behind the thought in all that a model wrote; "" if that cannot be told."""

    def push(self, text: str) -> list[Reasoning | Text | Call]:
        """What is certain after this text."""

    def finish(self, *, is_cut: bool) -> list[Reasoning | Text | Call]:
        """What is left when no more text comes; ``is_cut``: the limit of tokens ended it."""


@dataclass(frozen=True)
class Dialect:
    """A manner of writing under its name; without a manner, that of Harmony."""

    name: str
    manner: Manner | None
    forced_call: ForcedCall
    # Where a call that the model makes by itself can be held to what was declared.
    openings: Sequence[Opening] = ()
    # Calls (name, arguments) as text, for templates that leave them out.
    as_text: Callable[[Sequence[Mapping[str, Any]]], str] = hermes_text

    def reader(
        self, prompt: str, tools: Sequence[Mapping[str, Any]], *, takes_calls: bool, begun: str = ""
    ) -> Reader:
        """A reader for the answer to a rendered prompt; ``begun``: what of it the prompt ends with."""
        if self.manner is None:
            return HarmonyReader(takes_calls=takes_calls)
        schemas = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
        return AnswerReader(
            self.manner,
            schemas,
            is_thinking=self.opens_thought(prompt, begun),
            strips=self.opens_thought(prompt),
            takes_calls=takes_calls,
        )

    @property
    def thought_begins(self) -> Sequence[str]:
        """Marks that open a thought."""
        return [mark.text for mark in self.manner.marks if mark.opens is None] if self.manner else []

    @property
    def thought_ends(self) -> Sequence[str]:
        """Marks that end a thought."""
        return self.manner.thought_ends if self.manner else ()

    @property
    def written(self) -> Sequence[str]:
        """All that the family writes around thoughts and calls: special tokens in it are no noise."""
        if self.manner is None:
            return MARKS
        openings = [(each.mark, each.forms) for each in self.openings]
        forms = [form for _, forms in (*openings, ("", (self.forced_call.form,))) for form in forms]
        marks = [mark.text for mark in self.manner.marks] + [mark for mark, _ in openings]
        texts = [text for form in forms for text in _texts_of(form)]
        return [*marks, *self.manner.thought_ends, *self.manner.silent, self.forced_call.begins, *texts]

    @property
    def first_calls(self) -> Sequence[Opening]:
        """How an answer begins that calls functions; nothing where a header says so before all answers."""
        if self.manner is None:
            return ()
        return self.openings or (Opening(self.forced_call.begins, (self.forced_call.form,)),)

    @property
    def call_sections(self) -> Sequence[str]:
        """Marks that may stand before that, and open a list of calls."""
        return self.manner.call_sections if self.manner else ()

    def opens_thought(self, prompt: str, begun: str = "") -> bool:
        """Whether a rendered prompt ends inside a thought: with its mark, or within what of the answer has
        ``begun``.
        """
        last_begin = max(map(begun.rfind, self.thought_begins), default=-1)
        last_end = max(map(begun.rfind, self.thought_ends), default=-1)
        return last_begin > last_end or prompt.rstrip().endswith(tuple(self.thought_begins))

    def answer_begins(self, prompt: str, *, is_call: bool, begun: str = "") -> re.Pattern[str] | None:
        """What ends the thought before an answer; None if the answer begins at once."""
        if self.manner is None:
            return None if is_call else _HARMONY_ANSWER
        if not self.opens_thought(prompt, begun):
            return None
        return re.compile("(?:" + "|".join(map(re.escape, self.thought_ends)) + r")\s*\Z")


def _texts_of(form: Form) -> list[str]:
    alone = form.alone if isinstance(form, ListForm) else form
    return [text for text in vars(alone).values() if text]


_HARMONY_ANSWER = re.compile(r"<\|channel\|>final[^<]*(<\|constrain\|>[^<]*)?<\|message\|>\Z")
# What stands between a recipient's name and the message, in the ways that are seen.
_HARMONY_HEADS = tuple(
    channel + content
    for channel in ("", "<|channel|>commentary", "<|channel|>analysis")
    for content in (" <|constrain|>json", " json", "")
)
_HARMONY = (
    Opening(
        " to=functions.",
        tuple(JsonForm("{name}" + head + "<|message|>", "") for head in _HARMONY_HEADS),
        r"<\|(?:channel|start)\|>[a-z]{1,20} to=functions\.",
    ),
)
_HERMES_FORM = JsonForm('\n{"name": "{name}", "arguments": ', "}\n</tool_call>")
_HERMES_FORCED = ForcedCall("<tool_call>", _HERMES_FORM)
_XML_FORM = TaggedForm(
    "\n<function={name}>\n", "<parameter={name}>\n", "\n</parameter>\n", "</function>\n</tool_call>"
)
_GLM_FORMS = (
    TaggedForm("{name}\n", "<arg_key>{name}</arg_key>\n<arg_value>", "</arg_value>\n", "</tool_call>"),
    TaggedForm("{name}\n", "<arg_key>{name}</arg_key><arg_value>", "</arg_value>\n", "</tool_call>"),
    TaggedForm("{name}", "<arg_key>{name}</arg_key><arg_value>", "</arg_value>", "</tool_call>"),
)
_DEEPSEEK_END = "<｜tool▁call▁end｜>"
_DEEPSEEK_FORMS = (
    JsonForm("{name}<｜tool▁sep｜>", _DEEPSEEK_END),
    JsonForm("function<｜tool▁sep｜>{name}\n```json\n", "\n```" + _DEEPSEEK_END),
)
_DEEPSEEK_FORCED = ForcedCall(
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>",
    JsonForm("{name}<｜tool▁sep｜>", _DEEPSEEK_END + "<｜tool▁calls▁end｜>"),
)
_DSML_FORM = TaggedForm(
    '{name}">\n',
    '<｜DSML｜parameter name="{name}" string="true">',
    "</｜DSML｜parameter>\n",
    "</｜DSML｜invoke>",
    '<｜DSML｜parameter name="{name}" string="false">',
)
_DEEPSEEK = (
    Opening("<｜tool▁call▁begin｜>", _DEEPSEEK_FORMS),
    Opening('<｜DSML｜invoke name="', (_DSML_FORM,)),
)
_MISTRAL_FORM = JsonForm("{name}[ARGS]", "")
_MISTRAL_FORMS = (_MISTRAL_FORM, JsonForm("{name}[CALL_ID]{id}[ARGS]", ""))
_LFM2_END = "<|tool_call_end|>"
_LFM2_LIST = ListForm(PythonForm("{name}", ""), " [", "]" + _LFM2_END)
# As these models are asked to write, and as some templates show them their own calls.
_LFM2_JSON = ListForm(JsonForm('{"name": "{name}", "arguments": ', "}"), " [", "]" + _LFM2_END)
_HERMES_OPENING = Opening("<tool_call>", (_HERMES_FORM,))

VERBATIM = Dialect("verbatim", Manner(()), _HERMES_FORCED)
DIALECTS = {
    "qwen3-hermes": Dialect("qwen3-hermes", HERMES, _HERMES_FORCED, [_HERMES_OPENING]),
    "qwen3-xml": Dialect(
        "qwen3-xml", QWEN_XML, ForcedCall("<tool_call>", _XML_FORM), [Opening("<tool_call>", (_XML_FORM,))]
    ),
    "gemma4": Dialect(
        "gemma4",
        GEMMA,
        ForcedCall("<|tool_call>", JsonForm("call:{name}", "<tool_call|>")),  # with all that is required
        [Opening("<|tool_call>", (QuotedForm("call:{name}", "<tool_call|>", QUOTE),))],
    ),
    "gpt-oss": Dialect(
        "gpt-oss",
        None,
        ForcedCall(
            "<|channel|>commentary to=functions.", JsonForm("{name} <|constrain|>json<|message|>", "")
        ),
        _HARMONY,
    ),
    "glm": Dialect(
        "glm", GLM, ForcedCall("<tool_call>", _GLM_FORMS[0]), [Opening("<tool_call>", _GLM_FORMS)]
    ),
    "deepseek": Dialect("deepseek", DEEPSEEK, _DEEPSEEK_FORCED, _DEEPSEEK),
    "mistral": Dialect(
        "mistral",
        MISTRAL,
        ForcedCall("[TOOL_CALLS]", _MISTRAL_FORM),
        [Opening("[TOOL_CALLS]", _MISTRAL_FORMS)],
    ),
    "lfm2": Dialect(
        "lfm2",
        LFM2,
        ForcedCall("<|tool_call_start|>", replace(_LFM2_LIST, before="[").alone),
        [Opening("<|tool_call_start|>", (_LFM2_LIST, _LFM2_JSON))],
        as_text,
    ),
    # Earlier models write all calls as one list, of which only the first would be held.
    "mistral-list": Dialect(
        "mistral-list",
        MISTRAL,
        ForcedCall("[TOOL_CALLS]", JsonForm(' [{"name": "{name}", "arguments": ', "}]")),
    ),
}
# What a template of a family writes and others do not; the first that is found decides.
_SIGNS = (
    ("<|channel|>", "gpt-oss"),
    ("<|tool_call>", "gemma4"),
    ("<arg_key>", "glm"),
    ("｜DSML｜", "deepseek"),
    ("<｜tool▁call", "deepseek"),
    ("<function=", "qwen3-xml"),
    ("<|tool_call_start|>", "lfm2"),
    ("<|tool_list_start|>", "lfm2"),
    ("List of tools: ", "lfm2"),
    ("[ARGS]", "mistral"),
    ("[TOOL_CALLS]", "mistral-list"),
)


def find_dialect(template: str) -> Dialect:
    """The dialect of a chat template, by the marks it writes. Without any, calls are asked for as Hermes
    writes them.
    """
    return next((DIALECTS[name] for sign, name in _SIGNS if sign in template), DIALECTS["qwen3-hermes"])
