"""Answers together or in turn: the faster way is found, kept, left when that changes, and costs little."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemoe.engine.company import FIRST_REST, LONGEST_REST, TRIAL_TOKENS, Company


def written(
    company: Company, num_tokens: int, together_s: Callable[[int], float], num_texts: int = 4
) -> float:
    """Seconds of so many tokens: one in turn takes a second, and one together what the function says."""
    seconds, done = 0.0, 0
    while done < num_tokens:
        count = num_texts if company.is_together else 1
        took_s = count * (together_s(done) if company.is_together else 1.0)
        company.note(count, took_s)
        seconds += took_s
        done += count
    return seconds


@pytest.mark.parametrize(
    ("together_s", "is_together"), [(0.7, True), (0.95, True), (1.0, False), (1.4, False)]
)
def test_the_faster_way_is_found_in_a_few_tokens(together_s, is_together):
    company = Company()
    written(company, 3 * TRIAL_TOKENS, lambda done: together_s)
    assert company.is_together == is_together


@given(st.floats(0.5, 2.0), st.integers(2, 16))
def test_little_is_lost_to_trials_of_the_slower_way(together_s, num_texts):
    num_tokens = 20_000
    took_s = written(Company(), num_tokens, lambda done: together_s, num_texts)
    best_s = num_tokens * min(1.0, together_s)
    assert took_s <= 1.03 * best_s + 2 * TRIAL_TOKENS


def test_a_way_that_has_become_the_slower_one_is_left():
    company = Company()
    written(company, FIRST_REST // 2, lambda done: 0.7)
    assert company.is_together
    written(company, 2 * LONGEST_REST, lambda done: 1.5)
    assert company._best is False
    written(company, 4 * LONGEST_REST, lambda done: 0.6)
    assert company._best is True


def test_one_disturbed_step_is_made_up_for_by_the_next_trial():
    company = Company()
    company.note(1, 1.0)  # the first one of a way does not count
    written(company, 2 * TRIAL_TOKENS, lambda done: 40.0 if done < TRIAL_TOKENS + 8 else 0.7)
    assert not company.is_together
    written(company, 2 * FIRST_REST, lambda done: 0.7)
    assert company.is_together
