"""How a store's experts are run while torch runs the rest of the model."""

from __future__ import annotations

from dataclasses import dataclass

from edgemoe.errors import RequestError
from edgemoe.experts import DEFAULT_POLICY, POLICIES, VERIFY_MODES
from edgemoe.store import READER_KINDS
from edgemoe.units import MIB, parse_size

# Activations, keys and values of a few thousand tokens of a model of usual size.
DEFAULT_RESERVE_BYTES = 256 * MIB
PREDICTORS = ("auto", "gate", "none")


@dataclass(frozen=True)
class StreamOptions:
    """Options of ``EdgeMoEConfig``, checked; sizes in bytes."""

    memory_bytes: int | None
    cache_bytes: int | None
    reserve_bytes: int
    policy: str
    predictor: str
    reader: str
    verify: str


def check_options(
    memory: str | int | None = None,
    cache: str | int | None = None,
    reserve: str | int = DEFAULT_RESERVE_BYTES,
    policy: str = DEFAULT_POLICY,
    predictor: str = "auto",
    reader: str = "auto",
    verify: str = "always",
) -> StreamOptions:
    """The options as given by a user.

    Raises:
        RequestError: one has no such value.
    """
    for name, value, choices in (
        ("policy", policy, POLICIES),
        ("predictor", predictor, PREDICTORS),
        ("reader", reader, READER_KINDS),
        ("verify", verify, VERIFY_MODES),
    ):
        if value not in choices:
            raise RequestError(f"no {name} {value!r}; choose one of {', '.join(choices)}")
    return StreamOptions(
        None if memory is None else parse_size(memory),
        None if cache is None else parse_size(cache),
        parse_size(reserve),
        policy,
        predictor,
        reader,
        verify,
    )
