"""What a model is given to read: turns in its own words, functions in words, and what was read before."""

from __future__ import annotations

import json
import shutil

import openai
import pytest
from helpers.live_server import DEMO_STORE, live_server
from server.test_constraints import TOOLS

from edgemoe.server.call_memory import CallMemory, Turn, differs_only_within, render_remembered
from edgemoe.server.conversation import render_messages, with_short_ids
from edgemoe.server.dialects import DIALECTS
from edgemoe.server.messages import function_call
from edgemoe.server.request import AnswerRequest
from edgemoe.server.tool_prompt import in_words
from edgemoe.text.templates import ChatTemplate

# Writes functions and calls, as templates of today do; its JSON is not as the model writes it.
TEMPLATE = """{%- if tools %}<|im_start|>system
{{ tools | tojson(indent=1) }}<|im_end|>
{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content or '' }}{% for call in m.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson(indent=2) }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def render(messages):
    """A little template."""
    parts = []
    for message in messages:
        calls = "".join(f"<call {c['function']['name']}>" for c in message.get("tool_calls", ()))
        parts.append(f"[{message['role']}]{message.get('content', '')}{calls}[end]")
    return "".join(parts)


def turn(text="let me see\n<call  f >", **options):
    return Turn(text, "let me see", {"call_1": ("f", {"a": 1})}, **options)


SAID = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "let me see", "tool_calls": [function_call("call_1", "f", {"a": 1})]},
    {"role": "tool", "content": "done"},
]


def test_a_remembered_turn_is_the_text_that_the_model_wrote():
    memory = CallMemory()
    memory.keep(turn())
    assert render_remembered(SAID, memory, render) == (
        "[user]hi[end][assistant]let me see\n<call  f >[end][tool]done[end]"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"content": "something else"},
        {"tool_calls": [function_call("call_1", "f", {"a": 2})]},
        {"tool_calls": [function_call("call_2", "f", {"a": 1})]},
    ],
)
def test_a_turn_that_was_changed_is_not(change):
    memory, said = CallMemory(), [SAID[0], SAID[1] | change, SAID[2]]
    memory.keep(turn())
    assert render_remembered(said, memory, render) == render(said)


def test_a_template_that_ends_such_turns_otherwise_is_left_alone():
    def other(messages):
        text = render(messages)
        return text.replace("[end][tool]", "[tool]") if any("tool_calls" in m for m in messages) else text

    memory = CallMemory()
    memory.keep(turn())
    assert render_remembered(SAID, memory, other) == other(SAID)
    assert not differs_only_within("a<b>c", "a<x>c!", "<x>")


def test_the_memory_is_bounded():
    memory = CallMemory()
    for number in range(5000):
        memory.keep(Turn("x" * 5000, "", {f"call_{number}": ("f", {})}))
    assert memory.find({"content": "", "tool_calls": [function_call("call_0", "f", {})]}) is None
    assert memory.find({"content": "", "tool_calls": [function_call("call_4999", "f", {})]}) is not None


def test_functions_are_told_in_words_where_the_template_knows_none():
    told = in_words([{"role": "system", "content": "Be kind."}, *SAID], TOOLS, DIALECTS["qwen3-hermes"])
    assert told[0]["content"].startswith("Be kind.\n\nYou can call functions.")
    assert '"get_weather"' in told[0]["content"]
    assert told[2]["content"].endswith('<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>')
    assert told[3] == {"role": "user", "content": "<tool_response>\ndone\n</tool_response>"}


# Knows functions and results, but leaves calls out, as LFM2's first template does.
FORGETFUL = """{% if tools %}List of tools: <|tool_list_start|>{{ tools | tojson }}<|tool_list_end|>
{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}"""
DEAF = """{% for m in messages %}{{ m.role }}: {{ m.content }}
{% endfor %}"""


class Templated:
    """A model of which only the template counts."""

    def __init__(self, template):
        self.template = template
        self._template = ChatTemplate(template)

    def render(self, messages, tools, options):
        return self._template.render(messages, tools, None, options)


def prompt_of(template, tools):
    call = function_call("c", "f", {"city": 'a "b"', "n": [1, {"x": None}], "on": True})
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": [call, function_call("d", "g", {})]},
        {"role": "tool", "content": "done"},
    ]
    return render_messages(
        Templated(template), AnswerRequest("m", messages=messages, tools=tools), CallMemory()
    )


def test_calls_stay_in_the_conversation_where_the_template_leaves_them_out():
    calls = r"""[f(city="a \"b\"", n=[1, {"x": None}], on=True), g()]"""
    text = f"<|im_start|>assistant\n<|tool_call_start|>{calls}<|tool_call_end|><|im_end|>\n"
    assert text + "<|im_start|>tool\ndone" in prompt_of(FORGETFUL, TOOLS)
    assert text in prompt_of(FORGETFUL, [])
    hermes = '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>\n'
    assert hermes + "user: <tool_response>\ndone" in prompt_of(DEAF, [])  # a later turn without functions


def test_a_call_that_was_made_text_is_read_as_the_same_call():
    arguments = {"city": 'it\'s "b"\\n\n\t\u00fc', "n": [1, -2.5, {"x": None, "y": []}], "on": True, "t": ""}
    text = DIALECTS["lfm2"].as_text([{"name": "f", "arguments": arguments}, {"name": "g", "arguments": {}}])
    reader = DIALECTS["lfm2"].reader("", [], takes_calls=True)
    calls = reader.push(text) + reader.finish(is_cut=False)
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [("f", arguments), ("g", {})]


def give_template(store, template):
    give_file(store, "chat_template.jinja", template)


def give_file(store, name, text):
    """Another file, written into the store's list of files too."""
    (store / name).write_text(text)
    manifest = json.loads((store / "edgemoe.json").read_text())
    manifest["files"][name] = len(text.encode())
    manifest["checksums"].pop(name, None)
    del manifest["checksum"]
    (store / "edgemoe.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def tool_client(tmp_path_factory):
    store = shutil.copytree(DEMO_STORE, tmp_path_factory.mktemp("tools") / "demo")
    give_template(store, TEMPLATE)
    with (
        live_server(store) as live,
        openai.OpenAI(base_url=f"{live.url}/v1", api_key="x", max_retries=0) as client,
    ):
        yield client


def test_the_second_turn_reads_only_what_is_new(tool_client):
    """The client's JSON of the call, and the template's, differ from the model's text; still it is known."""
    messages = [{"role": "user", "content": "What is the weather in Paris, and in Oslo?"}]

    def ask(**options):
        return tool_client.chat.completions.create(
            model="demo", messages=messages, tools=TOOLS, max_tokens=80, temperature=0, **options
        )

    first = ask(tool_choice={"type": "function", "function": {"name": "get_weather"}})
    (call,) = first.choices[0].message.tool_calls
    messages += [
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "Sunny."},
    ]
    second = ask()
    known = first.usage.prompt_tokens + first.usage.completion_tokens
    assert second.usage.prompt_tokens_details.cached_tokens >= 0.95 * known - 1
    assert second.usage.prompt_tokens_details.cached_tokens >= 0.9 * second.usage.prompt_tokens


def test_tools_count_in_the_prompt(openai_client):
    ask = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    plain = openai_client.chat.completions.create(**ask)
    with_tools = openai_client.chat.completions.create(**ask, tools=TOOLS)
    none = openai_client.chat.completions.create(**ask, tools=TOOLS, tool_choice="none")
    assert with_tools.usage.prompt_tokens > plain.usage.prompt_tokens + 50
    assert none.usage.prompt_tokens == plain.usage.prompt_tokens


# As templates of Gemma 2 and Mistral have it.
STRICT = """{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate') }}{% endif %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}<|im_start|>assistant
"""


def test_templates_that_want_turns_to_alternate_are_given_such(tmp_path):
    """Codex opens with messages of one side, and compacted conversations have more of them."""
    store = shutil.copytree(DEMO_STORE, tmp_path / "demo")
    give_template(store, STRICT)
    items = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": "<environment_context/>"},
        {"role": "user", "content": "Tell a story."},
    ]
    with (
        live_server(store) as live,
        openai.OpenAI(base_url=f"{live.url}/v1", api_key="x", max_retries=0) as client,
    ):
        ask = {"model": "demo", "max_output_tokens": 2}
        assert client.responses.create(**ask, input=items, instructions="Be brief.").output_text
        later = [*items, {"role": "assistant", "content": "No."}, items[0], items[2]]
        assert client.responses.create(**ask, input=later).output_text
        with pytest.raises(openai.BadRequestError, match="must alternate"):
            client.responses.create(**ask, input=[{"role": "assistant", "content": "No."}, *items])


# As Mistral's templates of Mixtral's time have it.
NINE = """{% for m in messages %}
{%- for id in (m.tool_calls or []) | map(attribute='id') | list + [m.tool_call_id] %}
{%- if id and id | length != 9 %}{{ raise_exception('Tool call IDs should have length 9!') }}{% endif %}
{%- endfor %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}<|im_start|>assistant
"""


def test_templates_that_want_short_ids_of_calls_are_given_such(tmp_path):
    """Ours are longer, and so are those of the servers that a conversation was with before."""
    store = shutil.copytree(DEMO_STORE, tmp_path / "demo")
    give_template(store, NINE)
    call = {"id": "call_0123456789", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "Sunny."},
    ]
    with (
        live_server(store) as live,
        openai.OpenAI(base_url=f"{live.url}/v1", api_key="x", max_retries=0) as client,
    ):
        done = client.chat.completions.create(model="demo", messages=messages, max_tokens=1)
    assert done.choices[0].finish_reason == "length"


def test_short_ids_still_say_which_result_is_whose():
    said = [
        {
            "role": "assistant",
            "tool_calls": [function_call("call_1", "f", {}), function_call("abcDEF123", "f", {})],
        },
        {"role": "tool", "tool_call_id": "abcDEF123", "content": "b"},
        {"role": "tool", "tool_call_id": "call_1", "content": "a"},
    ]
    first, second = (call["id"] for call in with_short_ids(said)[0]["tool_calls"])
    assert (len(first), first.isalnum(), second) == (9, True, "abcDEF123")
    assert [message["tool_call_id"] for message in with_short_ids(said)[1:]] == [second, first]
