"""What runs together in a step: rules by hand, and what holds for every line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgemoe.engine.batch import (
    MOST_ANSWERS,
    STEPS_PER_CHUNK,
    Limits,
    LoneChunk,
    Wish,
    answers_together,
    choose,
    chunk_patience_s,
    gathering_s,
    steps_owed,
)

TOKEN, CHUNK, REST = Wish(1, True), Wish(512, False), Wish(100, False)
ALONE = Wish(1, True, is_alone=True)


def test_answers_go_together_where_nothing_is_waited_for_and_else_one_at_a_time():
    assert answers_together(MOST_ANSWERS, True, 0.9, False) == MOST_ANSWERS
    assert answers_together(8, False, 0.01, False) == 8
    assert answers_together(8, False, 0.3, False) == 1
    assert answers_together(8, False, 0.3, True) == 8


def test_answers_before_prompts_while_they_are_owed():
    limits = Limits(512, 16)
    assert choose([CHUNK, TOKEN, TOKEN], limits, 3) == [1, 2]
    assert choose([TOKEN, CHUNK, TOKEN], limits, 0) == [1]
    assert choose([CHUNK, TOKEN], limits, 0) == [0]


def test_one_answer_at_a_time_is_the_first_that_asked():
    assert choose([TOKEN, TOKEN, TOKEN], Limits(512, 1), 5) == [0]


def test_prompts_share_a_step_as_far_as_its_rows_reach_and_answers_ride_along():
    assert choose([CHUNK, CHUNK, CHUNK, TOKEN], Limits(1024, 16), 0) == [0, 1]
    assert choose([REST, CHUNK, REST, TOKEN, TOKEN], Limits(512, 1), 0) == [0, 2, 3]


def test_who_wants_to_be_alone_is():
    assert choose([ALONE, TOKEN, CHUNK], Limits(1024, 16), 0) == [0]
    assert choose([TOKEN, ALONE, TOKEN], Limits(1024, 16), 0) == [0, 2]


def test_a_short_chunk_takes_turns_and_a_long_one_pays_back():
    assert steps_owed(0.01, 0.02) == 1
    assert steps_owed(2.0, 0.02) == STEPS_PER_CHUNK


def test_a_step_waits_for_a_part_of_its_time_and_not_for_long():
    assert gathering_s(0.01) == 0.005
    assert gathering_s(60.0) == 0.02


def test_a_long_chunk_waits_for_another_texts_where_storage_is_waited_for_and_a_step_has_room():
    roomy, slow = Limits(1024, 16), LoneChunk(took_s=0.5, waited_s=0.2)
    assert chunk_patience_s([CHUNK], roomy, slow) == 0.01
    assert chunk_patience_s([CHUNK], roomy, LoneChunk(60.0, 30.0)) == 0.02
    assert chunk_patience_s([CHUNK], roomy, LoneChunk(0.5, 0.05)) == 0.0
    assert chunk_patience_s([CHUNK], roomy, LoneChunk()) == 0.0
    for waiting in ([CHUNK, CHUNK], [CHUNK, TOKEN], [REST], [TOKEN], [ALONE]):
        assert chunk_patience_s(waiting, roomy, slow) == 0.0
    assert chunk_patience_s([CHUNK], Limits(512, 16), slow) == 0.0


@given(st.integers(40, 1000), st.integers(0, STEPS_PER_CHUNK))
def test_less_than_one_in_twenty_of_an_answers_tokens_waits_for_a_chunk(num_tokens, owed):
    num_waits = 0
    for _ in range(num_tokens):
        while choose([CHUNK, TOKEN], Limits(512, 16), owed) == [0]:
            num_waits, owed = num_waits + 1, steps_owed(2.0, 0.02)
        owed -= 1
    assert num_waits <= num_tokens / 20


wishes = st.builds(
    lambda rows, answer, alone: Wish(1 if answer else rows, answer, alone),
    st.integers(1, 512), st.booleans(), st.booleans(),
)  # fmt: skip


@given(st.lists(wishes, min_size=1, max_size=40), st.sampled_from([512, 1024]), st.integers(1, 16),
       st.integers(0, 20))  # fmt: skip
def test_every_step_is_within_the_limits_and_for_somebody(waiting, num_rows, num_answers, num_owed):
    chosen = choose(waiting, Limits(num_rows, num_answers), num_owed)
    assert chosen
    assert chosen == sorted(set(chosen))
    assert sum(waiting[i].num_rows for i in chosen) <= num_rows
    assert sum(waiting[i].is_answer for i in chosen) <= num_answers
    assert len(chosen) == 1 or not any(waiting[i].is_alone for i in chosen)


@given(st.lists(wishes, min_size=1, max_size=30), st.integers(1, 16))
def test_everybody_has_a_step_in_the_end(waiting, num_answers):
    line, owed = list(enumerate(waiting)), 0
    for _ in range(len(waiting)):
        chosen = choose([wish for _, wish in line], Limits(512, num_answers), owed)
        owed = max(0, owed - 1) if all(line[i][1].is_answer for i in chosen) else STEPS_PER_CHUNK
        line = [entry for i, entry in enumerate(line) if i not in chosen]
        if not line:
            return
    raise AssertionError("some wait for ever")
