"""What drafts are made of: places of a text's end, how often drafts hold, and how many are worth trying."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from helpers.uneven_text import UnevenText
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemoe.engine.drafting.drafter import TextDrafter
from edgemoe.engine.drafting.drafts import DraftCounts, Drafts, Experience
from edgemoe.engine.drafting.governor import (
    FIRST_LOSS,
    FIRST_SINGLES,
    FIRST_TRIALS,
    LOSS_SHARE,
    MOST_CREDIT,
    MOST_DRAFTS_IN_A_ROW,
    MOST_TRIALS,
    TRIAL_SHARE,
    Account,
    StepShape,
    StepTimes,
    Trials,
    best_length,
)
from edgemoe.engine.drafting.kinds import Chances
from edgemoe.native import FEWEST_AGREEING, MOST_AGREEING, MOST_PLACES, SuffixIndex

OLMOE = StepShape(dense_bytes=200e6, expert_bytes=400e6, num_experts=64, top_k=8)


def naive_match(tokens):
    """The longest match among the latest places where the last FEWEST_AGREEING tokens stood before."""
    if len(tokens) < FEWEST_AGREEING:
        return None
    ends = [
        e
        for e in range(len(tokens) - 1, FEWEST_AGREEING - 1, -1)
        if tokens[e - FEWEST_AGREEING : e] == tokens[-FEWEST_AGREEING:]
    ]
    best = None
    for end in ends[:MOST_PLACES]:
        length = FEWEST_AGREEING
        while length < min(MOST_AGREEING, end) and tokens[end - length - 1] == tokens[-length - 1]:
            length += 1
        if best is None or length > best[1]:
            best = end, length
        if length == MOST_AGREEING:
            break
    return best


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), max_size=30), max_size=8), st.integers(0, 200_000))
def test_the_index_finds_what_a_search_through_the_text_finds(pieces, offset):
    index, tokens = SuffixIndex(), []
    for piece in pieces:
        for token_id in piece:
            tokens.append(offset + token_id)
            if token_id:  # else it is caught up with later
                assert index.look(tokens[:-1], tokens[-1]) == naive_match(tokens)
                assert len(index) == len(tokens)


def test_the_index_finds_the_same_after_its_table_has_grown():
    tokens = [(i * i) % 97 for i in range(2500)]
    assert SuffixIndex().look(tokens[:-1], tokens[-1]) == naive_match(tokens)


def test_what_follows_a_place_goes_on_repeating_itself_at_the_texts_end():
    index = SuffixIndex()
    assert index.look([9, 1, 2, 3, 4, 5, 1, 2], 3) == (4, 3)
    assert index.after(4, 8) == [4, 5, 1, 2, 3, 4, 5, 1]
    with pytest.raises(IndexError):
        index.after(9, 1)


def test_the_text_drafts_what_followed_and_counts_on_it_more_the_longer_it_agrees():
    drafter = TextDrafter()
    assert drafter.draft([5, 6], 7, 4).token_ids == ()
    draft = drafter.draft([5, 6, 7, 8, 9, 5, 6], 7, 3)
    assert draft.token_ids == [8, 9, 5]
    assert draft.kinds == [2, 2, 3], "3, 4 and 5 tokens would then agree"
    chances = [drafter.expected[kind] for kind in sorted(drafter.expected)]
    assert chances == sorted(chances)


def test_chances_follow_what_a_text_shows_and_start_from_what_others_showed():
    shared = Chances({0: 0.5, 1: 0.9})
    first = Chances({0: 0.5, 1: 0.9}, shared)
    assert first[0] == pytest.approx(0.5)
    for _ in range(40):
        first.learn(0, False)
    assert first[0] < 0.1
    assert first[1] == pytest.approx(0.9)
    assert Chances({0: 0.5, 1: 0.9}, shared)[0] < 0.15
    for _ in range(40):
        first.learn(0, True)
    assert first[0] > 0.7, "what a text shows now outweighs what it showed before"


def test_experts_of_several_tokens_are_a_union():
    assert OLMOE.union(1) == pytest.approx(1)
    assert OLMOE.union(2) == pytest.approx(2 - 8 / 64)
    assert OLMOE.union(1000) == pytest.approx(64 / 8)
    # Two tokens: 200 + 400 * 1.875 of 600 MB; where all time is waiting for storage, 1.875.
    assert OLMOE.cost(2, waiting_share=0) == pytest.approx(950 / 600)
    assert OLMOE.cost(2, waiting_share=1) == pytest.approx(1.875)
    assert OLMOE.cost(2, waiting_share=0, correction=0.5) == pytest.approx(1 + 350 / 1200)


def test_a_draft_is_as_long_as_pays():
    costs = [1 + 0.5 * n for n in range(17)]
    assert best_length([0.1] * 8, costs, 100) == 0
    assert best_length([0.4] * 8, costs, 100) == 0, "1.4 tokens for the time of 1.5"
    assert best_length([1.0] * 8, costs, 100) == 8
    assert best_length([0.9, 0.9, 0.1, 0.1], costs, 100) == 2, "no further than it is good for"
    assert best_length([], costs, 100) == 0
    assert best_length([1.0] * 8, costs, affordable=2.0) == 4, "what it may lose bounds it"
    assert best_length([1.0] * 8, costs, affordable=0.4) == 0


def test_storage_makes_short_drafts_lose_that_pay_in_memory():
    chances = [0.8] * 15
    in_memory = [OLMOE.cost(n, 0.0) for n in range(1, 17)]
    on_storage = [OLMOE.cost(n, 0.9) for n in range(1, 17)]
    assert best_length(chances, in_memory, 100) > 0
    assert best_length(chances, on_storage, 100) == 0


def test_step_times_correct_what_bytes_say_and_ask_for_single_tokens_now_and_then():
    times = StepTimes(OLMOE)
    for _ in range(FIRST_SINGLES):
        assert not times.is_known
        times.single(0.01, 0.0)
    assert times.is_known
    assert times.costs(1) == pytest.approx([1, 950 / 600])
    for _ in range(60):
        times.several(2, 0.01 * (1 + 350 / 1200))
        times.single(0.01, 0.0)
    assert times.costs(1) == pytest.approx([1, 1 + 350 / 1200], rel=0.1), "half of what follows from bytes"
    for _ in range(MOST_DRAFTS_IN_A_ROW):
        assert times.is_known
        times.several(2, 0.01)
    assert not times.is_known
    times.single(0.02, 0.02)
    assert times.is_known


def test_an_account_never_lets_more_be_lost_than_its_share():
    account, time_spent, num_tokens = Account(), 0.0, 0
    for _ in range(2000):
        cost = 3.0 if account.affordable >= 2.0 else 1.5 if account.affordable >= 0.5 else 1.0
        account.book(1, cost)  # every draft is wrong
        time_spent, num_tokens = time_spent + cost, num_tokens + 1
    assert time_spent - num_tokens <= FIRST_LOSS + LOSS_SHARE * time_spent
    assert time_spent > num_tokens, "some were tried"


def test_what_drafts_brought_may_be_lost_again_up_to_a_limit():
    account = Account()
    account.book(1000, 10)
    assert account.affordable == pytest.approx(MOST_CREDIT + FIRST_LOSS + 10 * LOSS_SHARE)


def test_trials_are_paid_from_a_share_of_all_steps():
    trials = Trials()
    assert trials.can_pay(FIRST_TRIALS)
    assert not trials.can_pay(FIRST_TRIALS + 1)
    trials.pay(FIRST_TRIALS)
    assert not trials.can_pay(1.0)
    trials.earn(round(1 / TRIAL_SHARE))
    assert trials.can_pay(1.0)


def test_a_trial_that_costs_more_than_is_ever_saved_takes_all_of_it():
    trials = Trials()
    trials.earn(round(2 * MOST_TRIALS / TRIAL_SHARE))
    assert trials.can_pay(3 * MOST_TRIALS)
    trials.pay(3 * MOST_TRIALS)
    trials.earn(round(2.9 * MOST_TRIALS / TRIAL_SHARE))
    assert not trials.can_pay(3 * MOST_TRIALS)


@pytest.mark.parametrize("waiting_share", [0.6, 0.85])
def test_bad_luck_with_single_steps_does_not_end_drafts_that_pay(waiting_share):
    """What a step takes hangs on which of its experts happen to be missing."""
    gains = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        shared = Experience(StepTimes(OLMOE), Chances(TextDrafter().expected), DraftCounts())
        for _ in range(4):
            prompt = rng.permutation(64).tolist()
            text = UnevenText(OLMOE, prompt, waiting_share, lambda rng=rng: rng.lognormal(-0.06, 0.35))
            drafts = Drafts(TextDrafter(), shared)
            for token_id in prompt:
                drafts.step(text, token_id)
            gains.append(len(prompt) / text.took)
    assert statistics.median(gains) > 1.3
    assert sum(gain > 1.15 for gain in gains) > 0.7 * len(gains)
