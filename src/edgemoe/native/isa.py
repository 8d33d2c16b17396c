"""The instruction set of compiled code: the fastest of this processor, or the one that EDGEMOE_ISA names."""

from __future__ import annotations

import edgemoe._native as _native
from edgemoe.errors import RequestError


def active_isa() -> str:
    """Its name; asked early, it refuses a name that cannot be run before anything else is done.

    Raises:
        RequestError: EDGEMOE_ISA names none that was built and runs here.
    """
    try:
        return _native.active_isa()
    except RuntimeError as error:
        raise RequestError(f"EDGEMOE_ISA: {error}") from error
