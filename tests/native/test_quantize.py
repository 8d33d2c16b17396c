"""The search for scales and zeros: it finds the best pair, row by row, and always the same one."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from edgemoe import native
from edgemoe.quant import quantize_for

# Of packed bytes, as the first version of each quantiser wrote them: without importance, with it, for a gram.
# Faster ways to find them may change nothing.
CHECKSUMS = {
    "q2": (3016373381, 516048184, 1670671720),
    "q3": (1141963353, 2077263909, 2594051571),
    "q4": (1678788130, 507563271, 3113130784),
    "q6": (3137314438, 1158418067, 833971158),
    "q8": (3704190146, 3704190146, 3704190146),
    "bf16": (2995118878, 2995118878, 2995118878),
    "f16": (2589543745, 2589543745, 2589543745),
    "f32": (1376538660, 1376538660, 1376538660),
    "t2": (564524005, 3658646245, 3116023923),
    "t3": (3089781526, 3120187547, 1564015845),
}
SEARCHED = {
    "q2": (3, 2, 0.5),
    "q3": (7, 4, 2.5),
    "q6": (63, 31, 32),
}  # largest code, steps of a side, first zero
WINDOW = {"q2": (0.42, 1), "q3": (0.42, 1), "q6": (0.9, 1.3)}  # scales to try, relative to the spanning one


def plain_weights(rows, cols):
    """Near to Gaussian, with outliers, zeros and a narrow block; exact on every machine."""
    rng = np.random.default_rng(3)
    weights = rng.integers(-128, 129, (4, rows, cols)).sum(axis=0).astype(np.float32) / 4096
    weights[rows // 2, 5] *= 16
    weights[1, 32:80] = 0
    weights[2, :32] /= 256
    importance = 2.0 ** rng.integers(-3, 4, cols).astype(np.float32)
    importance[7::50] = 0
    return weights, importance


def plain_gram(cols):
    """Of columns of three sizes that are like their neighbours; positive definite."""
    distance = np.abs(np.subtract.outer(np.arange(cols), np.arange(cols)))
    size = 1 + np.arange(cols) % 3
    return (0.5 ** np.minimum(distance, 20) * np.outer(size, size)).astype(np.float32)


@pytest.mark.parametrize("format", [t.name for t in native.FORMAT_TRAITS.values() if t.is_rounded])
def test_bytes_are_what_they_always_were(format):
    weights, importance = plain_weights(35, 160)
    packed = (
        native.quantize(weights, format),
        native.quantize(weights, format, importance),
        quantize_for(weights, format, plain_gram(160)),
    )
    assert tuple(zlib.crc32(p.tobytes()) for p in packed) == CHECKSUMS[format]


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("format", SEARCHED)
def test_no_other_pair_of_the_search_is_better(format, is_weighted):
    weights, importance = plain_weights(16, 320)
    importance = importance if is_weighted else np.ones_like(importance)
    packed = native.quantize(weights, format, importance)
    change = native.dequantize(packed, format, *weights.shape) - weights.astype(np.float64)
    found = in_halves(change**2 * importance).sum(axis=-1)
    assert np.all(
        found <= least_errors(packed, format, in_halves(weights), in_halves(importance)) * (1 + 1e-4)
    )


def in_halves(values):
    """The columns that share a scale side by side, (..., M / 16, 16)."""
    return values.reshape(*values.shape[:-1], -1, 16)


def least_errors(packed, format, weights, importance):
    """Of all pairs that are to be tried, for 16 rows of one group (16, M / 16)."""
    largest_code, steps, first_zero = SEARCHED[format]
    base = (packed[:32].view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    if format == "q6":
        scales, zeros = (16 + np.arange(256) % 16) / 16 * 2.0 ** (np.arange(256) // 16 - 15), [first_zero]
    else:
        scales = (4 + np.arange(32) % 4) / 4 * 2.0 ** (np.arange(32) // 4 - 7)
        zeros = [first_zero + i / 4 for i in range(8)]
    spanning = np.abs(weights).max(axis=-1) / steps
    lowest, highest = (spanning * multiple for multiple in WINDOW[format])
    least = np.full(spanning.shape, np.inf)
    for scale in scales:
        unit = base[:, None] * scale
        is_tried = (unit > lowest * (1 + 1e-6)) & (unit < highest * (1 - 1e-6))
        for zero in zeros:
            code = np.clip(np.floor(weights / unit[..., None] + zero + 0.5), 0, largest_code)
            error = ((weights - unit[..., None] * (code - zero)) ** 2 * importance).sum(axis=-1)
            least = np.where(is_tried, np.minimum(least, error), least)
    return least


@pytest.mark.parametrize("format", ["q2", "q3", "q4", "q6", "q8"])
def test_a_row_is_rounded_as_if_it_were_alone(format):
    weights, importance = plain_weights(16, 96)
    whole = native.dequantize(native.quantize(weights, format, importance), format, 16, 96)
    for row in range(16):
        alone = native.quantize(weights[row : row + 1], format, importance)
        assert np.array_equal(native.dequantize(alone, format, 1, 96)[0], whole[row])
