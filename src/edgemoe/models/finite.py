"""Numbers that overflow while a model runs end the answer with an error: NaN would look like token 0.

Letters: T rows, D width, V vocabulary.
"""

from __future__ import annotations

from edgemoe import native
from edgemoe.errors import NumericError
from edgemoe.native import FloatArray

_REMEDY = "convert the checkpoint anew with wider formats, or check it: its own weights may overflow"


def overflow_error(error: OverflowError) -> NumericError:
    """What to do about keys or values that a cache of f16 cannot hold."""
    return NumericError(f'{error}; load the model with kv_format="f32"')


def refuse_overflow(x: FloatArray) -> None:
    """Refuse states (T, D) that the last norm cannot take: not finite, or with squares that are not.

    Raises:
        NumericError: there are some.
    """
    if not native.squares_finite(x):
        raise NumericError(f"the model's states are not finite; {_REMEDY}")


def refuse_not_finite(logits: FloatArray) -> None:
    """Refuse logits (T, V) that are not finite.

    Raises:
        NumericError: there are some.
    """
    if not native.all_finite(logits):
        raise NumericError(f"the model's logits are not finite; {_REMEDY}")
