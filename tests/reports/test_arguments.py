"""What callers pass to the Python interface, as clients of other libraries are used to pass it."""

from __future__ import annotations

import asyncio
import copy
import pickle

import numpy as np
import pytest

import edgemoe
from edgemoe import errors
from edgemoe.bench import BenchOptions
from edgemoe.errors import RequestError
from edgemoe.units import GIB, parse_size

PROMPT = [5, 6, 7]


@pytest.fixture(scope="module")
def model(tiny_store):
    with edgemoe.load(tiny_store, memory="2GiB") as loaded:
        yield loaded


class Tensor:
    """As torch has them: an array whose entries are no integers before ``tolist``."""

    ndim = 1

    def __iter__(self):
        return iter(["tensor(5)"])

    def tolist(self):
        return PROMPT


@pytest.mark.parametrize(
    "prompt",
    [tuple(PROMPT), range(5, 8), np.array(PROMPT), np.array(PROMPT, np.uint8), iter(PROMPT), Tensor()],
)
def test_token_ids_in_any_sequence(model, prompt):
    assert model.generate(prompt, max_tokens=2).token_ids == model.generate(PROMPT, max_tokens=2).token_ids


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        (b"abc", "the prompt is bytes, not token ids"),
        (bytearray(b"abc"), "the prompt is bytearray"),
        (None, "of type NoneType"),
        (5, "of type int"),
        ({"input_ids": PROMPT}, "of type dict"),
        ([PROMPT], "one text at a time"),
        (np.array([PROMPT]), "one text at a time"),
        (["a", "b"], "has 'a', which is no token id"),
        ([5.0], "has 5.0, which is no token id"),
        (np.array([5.5]), "no token id"),
        ([True], "has True"),
        ([None], "has None"),
        ([-1], "token id -1 is outside"),
        ([2**70], "is outside the vocabulary"),
        ([], "the prompt is empty"),
    ],
)
def test_what_is_no_prompt_is_refused_by_name(model, prompt, said):
    with pytest.raises(RequestError, match=said):
        model.generate(prompt, max_tokens=1)
    if prompt is not None and not isinstance(prompt, int):
        with pytest.raises(RequestError):
            model.logits(prompt)
        with pytest.raises(RequestError):
            model.perplexity(prompt)


@pytest.mark.parametrize(
    "options",
    [
        *({"max_tokens": value} for value in (0, -1, 1.5, "3", True)),
        *({"temperature": value} for value in (-1, "0.5", float("nan"), float("inf"), True, [1])),
        *({"top_k": value} for value in (-1, 1.5, "5")),
        *({"top_p": value} for value in (-0.1, 1.1, "0.9")),
        *({"min_p": value} for value in (2, "0")),
        *({"repetition_penalty": value} for value in (0, -1, 1e300, "1")),
        *({"presence_penalty": value} for value in (float("inf"), "0")),
        *({"seed": value} for value in (-1, 1.5, "x", True)),
        *({"stop": value} for value in (5, [5], b"a", [None])),
        *({"logprobs": value} for value in (-1, 10**6, 1.5)),
        *({"logit_bias": value} for value in ([1], {5: "a"}, {5.5: 1}, {"x": 1}, {-1: 1}, {10**9: 1})),
        {"progress": 5},
        {"constraint": 5},
    ],
    ids=str,
)
def test_options_are_checked_at_once(model, options):
    name = next(iter(options))
    with pytest.raises(RequestError, match=name):
        model.stream(PROMPT, **options)


def test_what_is_none_is_left_out(model):
    names = edgemoe.AnswerOptions.__annotations__
    plain = model.generate(PROMPT, max_tokens=3).token_ids
    nothing = dict.fromkeys(names.keys() - {"max_tokens"})
    assert model.generate(PROMPT, max_tokens=3, **nothing).token_ids == plain


def test_values_that_clients_send_mean_what_they_do_elsewhere(model):
    greedy = model.generate(PROMPT, max_tokens=3).token_ids
    for options in ({"top_p": 0}, {"top_k": 1}, {"top_p": 0.0, "temperature": 0}, {"temperature": 1e-30}):
        assert model.generate(PROMPT, max_tokens=3, **{"temperature": 2.0} | options).token_ids == greedy
    assert model.generate(PROMPT, max_tokens=2, logit_bias={"9": 1e9}).token_ids == [9, 9]
    assert model.generate(PROMPT, max_tokens=np.int64(2), stop=["", "x"], top_k=np.int32(0)).token_ids
    assert len(model.generate(PROMPT, max_tokens=1, temperature=1.0, seed=2**200).token_ids) == 1


def test_numpy_s_small_numbers_count_as_any(model):
    """An np.int8 of 100 plus a page's bytes is beyond an np.int8."""
    small = {"max_tokens": np.int8(2), "top_k": np.uint8(3), "seed": np.int16(5), "logprobs": np.int8(1)}
    options = {"temperature": np.float16(0.5), "top_p": np.float32(0.5), **small}
    expected = model.generate(PROMPT, max_tokens=2, top_k=3, seed=5, temperature=0.5, top_p=0.5).token_ids
    assert model.generate(PROMPT, **options).token_ids == expected


class Masked:
    def __init__(self, mask):
        self.mask = lambda: mask

    def accept(self, token_id):
        pass


# Beyond what single precision holds, or next to nothing: certain, ruled out, or refused, never a defect.
@pytest.mark.parametrize("temperature", [5e-324, 1e-310, 1.0, 1e308])
@pytest.mark.parametrize(
    "options",
    [
        {"logit_bias": {9: 1e39}},
        {"logit_bias": {9: 3e38, 11: 3e38}, "top_p": 0.1},
        {"repetition_penalty": 1e-45},
        {"frequency_penalty": -1e308},
        {"presence_penalty": 1e308},
    ],
    ids=str,
)
def test_numbers_at_the_end_of_their_range_draw_a_token(model, options, temperature):
    answer = model.generate(PROMPT, max_tokens=3, seed=1, temperature=temperature, **options)
    assert len(answer.token_ids) == 3
    if "logit_bias" in options and temperature <= 1:
        assert set(answer.token_ids) <= set(options["logit_bias"])


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_where_no_token_may_come_that_is_said(model, temperature):
    vocab_size = model.spec.vocab_size
    nothing = dict.fromkeys(range(vocab_size), float("-inf"))
    for options, said in (
        ({"logit_bias": nothing}, "logit_bias allows no token"),
        ({"constraint": Masked(np.zeros(vocab_size, bool))}, "the constraint allows no token"),
        ({"constraint": Masked(np.ones(vocab_size + 1, bool))}, "mask has the shape"),
    ):
        with pytest.raises(RequestError, match=said):
            model.generate(PROMPT, temperature=temperature, **options)
    some = model.generate(PROMPT, max_tokens=2, constraint=Masked([True] * vocab_size))
    assert some.token_ids == model.generate(PROMPT, max_tokens=2).token_ids


def test_names_of_template_options_are_any_text_but_no_more(model):
    turn = [{"role": "user", "content": "a"}]
    plain = model.chat(turn, max_tokens=2).token_ids
    for options in ({"self": 1, "messages_": 2, "most": 3}, {"tools": None, "documents": None}):
        assert model.chat(turn, max_tokens=2, template_options=options).token_ids == plain
    with pytest.raises(RequestError, match="the name 5"):
        model.chat(turn, template_options={5: 6})


def test_every_way_of_chatting_gives_the_same_answer(model):
    turn = [{"role": "user", "content": "a"}]

    async def awaited():
        return [t async for chunk in model.astream_chat(turn, max_tokens=4) for t in chunk.token_ids]

    with model.stream_chat(turn, max_tokens=4) as stream:
        streamed = [t for chunk in stream for t in chunk.token_ids]
    assert model.chat(turn, max_tokens=4).token_ids == streamed == asyncio.run(awaited())


def test_other_calls_check_as_well(model):
    for call in (
        lambda: model.generate_many("abc"),
        lambda: model.generate_many(None),
        lambda: model.generate_many({"a": 1}),
        lambda: model.stream(PROMPT, logit_bias={"9" * 5000: 1}),
        lambda: model.generate_n(PROMPT, 1.5),
        lambda: model.generate_n(PROMPT, 2, seed="x"),
        lambda: model.chat("hi"),
        lambda: model.chat(None),
        lambda: model.chat([{"role": "user", "content": "a"}], template_options={"messages": []}),
        lambda: model.chat([{"role": "user", "content": "a"}], template_options=5),
        lambda: model.perplexity(PROMPT, window=0),
        lambda: model.perplexity(PROMPT, window=2.5),
        lambda: model.perplexity(PROMPT, stride=0),
        lambda: model.tokenizer.encode(b"a"),
        lambda: model.tokenizer.decode(5),
        lambda: model.tokenizer.decode("abc"),
    ):
        with pytest.raises(RequestError):
            call()


@pytest.mark.parametrize(
    "options",
    [
        *({"memory": value} for value in (True, b"2GiB", 1.5, float("inf"), "50%", "")),
        *({"context": value} for value in (0, "64", 64.5, True)),
        *({"num_threads": value} for value in (0, "2", 1.5, 10**6)),
        *({"num_texts": value} for value in (0, 1.5)),
    ],
    ids=str,
)
def test_options_of_loading_are_checked(tiny_store, options):
    with pytest.raises(RequestError):
        edgemoe.load(tiny_store, **{"memory": "2GiB"} | options)


@pytest.mark.parametrize("store", [None, 5, ["a"], b"/tmp"])
def test_what_is_no_path_is_refused(store):
    with pytest.raises(RequestError, match="give the path"):
        edgemoe.load(store)


def test_sizes_of_whole_bytes_in_any_number(tiny_store):
    for memory in (2e9, np.int64(2 * GIB)):
        with edgemoe.load(tiny_store, memory=memory, context=np.int64(16)) as loaded:
            assert loaded.memory.context == 16


def test_a_text_that_brings_its_first_token_gets_no_second(tmp_path):
    from helpers.vocabularies import make_tokenizer
    from tokenizers.processors import TemplateProcessing

    from edgemoe.text import Tokenizer

    tokenizer = make_tokenizer("byte-level")
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>"}', encoding="utf-8")
    ours = Tokenizer(tmp_path, {})
    assert ours.encode_prompt("<s>a") == ours.encode_prompt("a") == ours.encode("a")
    assert ours.encode_prompt("<s><s>a") == [1, *ours.encode("a")]
    assert ours.encode_prompt("") == [1]


def _kinds(kind):
    for inner in kind.__subclasses__():
        yield inner
        yield from _kinds(inner)


@pytest.mark.parametrize("kind", [errors.EdgeMoEError, *_kinds(errors.EdgeMoEError)])
def test_errors_cross_processes(kind):
    """One that cannot be read again leaves the pool of processes that it came from hanging."""
    more = {errors.BudgetError: {"smallest_num_bytes": 5}, errors.UnwrittenPlanError: {"plan": "{}"}}
    error = kind("what is wrong", **more.get(kind, {}))
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is kind
        assert (str(again), vars(again)) == ("what is wrong", vars(error))


def test_a_model_is_neither_copied_nor_pickled(model):
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(RequestError, match="a model cannot be copied or pickled"):
            attempt(model)


def test_answers_cross_processes(model):
    answer = model.generate(PROMPT, max_tokens=3, logprobs=2)
    assert pickle.loads(pickle.dumps(answer)) == answer
    score = model.perplexity([*PROMPT, *PROMPT, 8, 9])
    assert pickle.loads(pickle.dumps(score)) == score
    pickle.dumps((model.stats(), model.memory, model.spec))


TOKENS = [("max_tokens", value) for value in (1, 0, -5, 2.0, "8", True, float("nan"))]
OPTIONS = {
    edgemoe.EvaluateOptions: [*TOKENS, ("window", 1), ("window", 8.5), ("stride", 0), ("stride", "4")],
    edgemoe.TraceOptions: [*TOKENS, ("window", -1)],
    edgemoe.ProfileOptions: [*TOKENS, ("window", 0), ("executor", "local")],
    edgemoe.SimulateOptions: [("max_tokens", 0), ("max_tokens", -1), *(("layer_s", x) for x in (-1, "1"))],
    edgemoe.ExecutorOptions: [("num_workers", 0), ("num_cores", -1), ("memory_bytes", "4GiB")],
    BenchOptions: [("num_prompt", -1), ("num_written", 1.5), ("num_repeats", 0)],
}


@pytest.mark.parametrize(
    ("kind", "name", "value"), [(kind, *option) for kind, odd in OPTIONS.items() for option in odd]
)
def test_numbers_of_options_are_checked_when_they_are_made(kind, name, value):
    """A negative number of tokens once cut a text at its end, and measured nearly all of it."""
    with pytest.raises(RequestError, match=f"^{name} is "):
        kind(**{name: value})


@pytest.mark.parametrize("layer_s", [float("nan"), float("inf")])
def test_a_layer_takes_a_finite_time(layer_s):
    with pytest.raises(RequestError, match="a number of seconds from 0 on"):
        edgemoe.SimulateOptions(layer_s=layer_s)


def test_plans_are_checked_as_profiles_are():
    with pytest.raises(RequestError, match=r"^max_tokens is -5"):
        edgemoe.PlanOptions(tolerance="2%", max_tokens=-5)


@pytest.mark.parametrize("texts", [{}, "a text", ["a text"], [("name", "a text")]])
def test_texts_have_names(tiny_store, tmp_path, texts):
    with pytest.raises(RequestError, match="give a table of names and texts"):
        edgemoe.trace_store(tiny_store, texts, tmp_path / "trace", edgemoe.TraceOptions(memory="2GiB"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", ["9" * 400, "9" * 400 + "GiB", "1." + "0" * 400 + "GiB"])
def test_a_size_has_few_digits(size):
    with pytest.raises(RequestError, match="is not a size"):
        parse_size(size)


def test_sizes_beyond_every_machine_are_told_from_none():
    assert parse_size("9" * 40 + "TiB") > 10**51
