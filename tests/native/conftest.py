"""What tests of compiled code share."""

from __future__ import annotations

import pytest

from edgemoe import native


@pytest.fixture(params=native.available_isas())
def isa(request):
    """Each instruction set of this machine in turn, forced for the test; the one of before comes back."""
    before = native.active_isa()
    native.force_isa(request.param)
    yield request.param
    native.force_isa(before)
