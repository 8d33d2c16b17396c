"""Outputs of real models, replayed: canitoolcall's fixtures, cut in every way."""

from __future__ import annotations

import random
import re
from collections import Counter
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("canitoolcall")
from canitoolcall.checks import case_status, run_checks
from canitoolcall.fixtures import load_families, load_fixtures
from canitoolcall.results import Observation, ParsedToolCall, ParseResult, Status
from server.test_constraints import TOOLS

from edgemoe.server.dialects import DIALECTS, Call
from edgemoe.server.events import Reasoning

# "soft": the same but for whitespace around a text.
PASSES = {Status.PASS, Status.SOFT_PASS}
WANTED = 0.95


@cache
def families():
    return load_families()


@cache
def fixtures(family):
    return [fixture for fixture in load_fixtures() if fixture.family == family]


def prompt_of(fixture):
    """The end of the prompt that the output is an answer to."""
    if fixture.generation_prompt is not None:
        return fixture.generation_prompt
    reference = families()[fixture.family].reference_for(fixture.reference_model)
    return (reference.default_generation_prompt if reference else None) or ""


def parse(fixture, pieces):
    reader = DIALECTS[fixture.family].reader(prompt_of(fixture), fixture.tools, takes_calls=True)
    out = [item for piece in pieces for item in reader.push(piece)]
    out += reader.finish(is_cut=fixture.truncated)
    calls = [item for item in out if isinstance(item, Call)]
    texts = [item for item in out if not isinstance(item, Call)]
    return ParseResult(
        "".join(item.text for item in texts if not isinstance(item, Reasoning)) or None,
        "".join(item.text for item in texts if isinstance(item, Reasoning)) or None,
        tuple(ParsedToolCall(call.name, call.arguments) for call in calls),
    )


def cuts(text):
    """Ways to cut a text: by character, and at random places."""
    yield "char:0", list(text)
    for seed in range(4):
        draw, pieces, rest = random.Random(seed), [], text
        while rest:
            size = draw.randint(1, 1 + 7 * seed)
            pieces.append(rest[:size])
            rest = rest[size:]
        yield f"rand:{seed}:{1 + 7 * seed}", pieces


def status(fixture):
    observed = Observation(
        parse(fixture, [fixture.raw_output]),
        {name: parse(fixture, cut) for name, cut in cuts(fixture.raw_output)},
    )
    rows = run_checks(fixture, families()[fixture.family], observed)
    return case_status(rows), rows


@pytest.mark.parametrize("family", DIALECTS)
def test_real_outputs_are_read_as_meant(family):
    found = {fixture.id: status(fixture) for fixture in fixtures(family)}
    failed = [
        f"{name}: {row.check} {row.strategy}: {row.detail}"
        for name, (result, rows) in found.items()
        if result not in PASSES
        for row in rows
        if row.status not in PASSES
    ]
    counts = Counter(result for result, _ in found.values())
    assert sum(counts[result] for result in PASSES) >= WANTED * len(found), "\n".join([str(counts), *failed])


@pytest.mark.parametrize("family", DIALECTS)
def test_cutting_changes_nothing(family):
    for fixture in fixtures(family):
        whole = parse(fixture, [fixture.raw_output])
        for name, pieces in cuts(fixture.raw_output):
            assert parse(fixture, pieces) == whole, (fixture.id, name)


@cache
def scraps(family):
    """What answers of a family are made of: marks, and what stands between them."""
    outputs = [fixture.raw_output for fixture in fixtures(family)[::4]]
    pattern = r"<[^<>]{1,30}>|\[[A-Z_]+\]|[^<\[]{1,24}"
    return sorted({scrap for text in outputs for scrap in re.findall(pattern, text)})


@pytest.mark.parametrize("family", DIALECTS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_whatever_is_written_is_read_the_same_in_any_pieces(family, data):
    """Marks in any order, halves of calls and of marks: nothing that a real model has to write."""
    parts = data.draw(st.lists(st.sampled_from([*scraps(family), " ", "\n", "{", '"', "<"]), max_size=12))
    text = "".join(parts)
    places = data.draw(st.lists(st.integers(0, len(text)), max_size=12))
    pieces = [text[start:end] for start, end in pairwise([0, *sorted(places), len(text)])]
    is_cut = data.draw(st.booleans())
    assert read_in(family, pieces, is_cut) == read_in(family, [text], is_cut)


def read_in(family, pieces, is_cut):
    """Thoughts, texts and calls in their order, neighbours of one kind joined."""
    reader = DIALECTS[family].reader("", TOOLS, takes_calls=True)
    out = [item for piece in pieces for item in reader.push(piece)] + reader.finish(is_cut=is_cut)
    joined = []
    for item in out:
        kind = type(item).__name__
        if isinstance(item, Call):
            joined.append((kind, (item.name, item.arguments)))
        elif joined and joined[-1][0] == kind:
            joined[-1] = (kind, joined[-1][1] + item.text)
        else:
            joined.append((kind, item.text))
    return joined


def test_text_before_a_message_of_harmony_is_no_header():
    text = " call get_weather.<|message|>"
    assert read_in("gpt-oss", list(text), False) == read_in("gpt-oss", [text], False) == [("Text", text)]
