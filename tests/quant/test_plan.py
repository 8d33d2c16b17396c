from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemoe.errors import RequestError
from edgemoe.native import FORMATS
from edgemoe.quant import BitPlan, ExpertFormats

_formats = st.sampled_from(FORMATS)
_experts = st.builds(ExpertFormats, _formats, _formats, _formats)
_plans = st.builds(
    BitPlan,
    _experts,
    _formats,
    st.dictionaries(st.tuples(st.integers(0, 200), st.integers(0, 500)), _experts, max_size=8),
    st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3),
)


@given(_plans)
def test_json_round_trip(plan: BitPlan) -> None:
    assert BitPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_overrides_name_single_experts() -> None:
    special = ExpertFormats("q2", "q2", "q3")
    plan = BitPlan(ExpertFormats.uniform("q4"), "q8", {(1, 7): special})
    assert plan.formats_of(1, 7) == special
    assert plan.formats_of(7, 1) == ExpertFormats("q4", "q4", "q4")


@pytest.mark.parametrize(
    "change",
    [
        {"default": ["q4", "q4"]},
        {"default": ["q4", "q4", "q5"]},
        {"dense": "int7"},
        {"overrides": {"1": ["q4", "q4", "q4"]}},
        {"overrides": {"1.x": ["q4", "q4", "q4"]}},
        {"overrides": None},
        {"extra": 1},
    ],
)
def test_refuses_what_is_not_a_plan(change: dict[str, object]) -> None:
    record = {**BitPlan.uniform("q4", "q8").to_json(), **change}
    with pytest.raises(RequestError):
        BitPlan.from_json(record)
