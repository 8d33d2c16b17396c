"""Steps between what is stored and what a model needs: all rows, and any rows, are what NumPy gives."""

from __future__ import annotations

import numpy as np
import pytest

from edgemoe.source_ref import (
    MinusExp,
    PlusOne,
    Reshaped,
    Rows,
    SourceRef,
    TakeColumns,
    TakeRows,
    Transposed,
    half_rotation_rows,
    read_part,
)

STORED = np.random.default_rng(0).standard_normal((12, 6)).astype(np.float32)
ORDER = np.random.default_rng(1).permutation(12)
COLUMNS = np.array([5, 0, 3])
CASES = {
    "rows": ((Rows(2, 9),), STORED[2:9]),
    "every other row": ((Rows(1, 12, 2),), STORED[1::2]),
    "reordered": ((TakeRows(ORDER),), STORED[ORDER]),
    "rows of zeros": ((TakeRows(np.array([3, -1, 0])),), np.stack([STORED[3], 0 * STORED[0], STORED[0]])),
    "columns of zeros": (
        (TakeColumns(np.array([2, -1])),),
        np.stack([STORED[:, 2], 0 * STORED[:, 0]], axis=1),
    ),
    "columns": ((TakeColumns(COLUMNS),), STORED[:, COLUMNS]),
    "transposed": ((Transposed(),), STORED.T),
    "blocks transposed": ((Transposed(3),), STORED.reshape(3, 4, 6).swapaxes(1, 2).reshape(18, 4)),
    "reshaped": ((Reshaped((24, 3)),), STORED.reshape(24, 3)),
    "an axis more": ((Reshaped((12, 1, 6)),), STORED[:, None]),
    "norms": ((PlusOne(),), STORED + np.float32(1)),
    "decays": ((MinusExp(),), -np.exp(STORED)),
    "one after another": (
        (TakeRows(ORDER), Rows(0, 12, 2), Transposed(), TakeColumns(COLUMNS), PlusOne()),
        STORED[ORDER][::2].T[:, COLUMNS] + np.float32(1),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_any_rows_are_what_numpy_gives(name):
    steps, expected = CASES[name]
    ref = SourceRef("x", steps=steps)
    assert ref.shape(STORED.shape) == expected.shape
    num_rows = len(expected)
    for start, stop in ((0, num_rows), (1, 2), (num_rows // 3, num_rows - 1)):
        part = read_part(ref.slice_rows(start, stop), STORED.shape, lambda a, b: STORED[a:b])
        assert part.flags.c_contiguous
        assert np.array_equal(part, expected[start:stop])


def test_stored_rows_are_said_where_nothing_but_rows_is_chosen():
    ref = SourceRef("x", rows=(1, 3), steps=(TakeRows(ORDER), Rows(0, 12, 2)))
    assert ref.stored_rows(STORED.shape).tolist() == ORDER[::2][1:3].tolist()
    assert SourceRef("x", steps=(TakeRows(np.array([3, -1])),)).stored_rows(STORED.shape) is None
    assert SourceRef("x", steps=(Transposed(),)).stored_rows(STORED.shape) is None


def test_slices_of_slices_count_from_the_first():
    ref = SourceRef("x", steps=(TakeRows(ORDER),)).slice_rows(3, 10).slice_rows(2, 4)
    assert np.array_equal(read_part(ref, STORED.shape, lambda a, b: STORED[a:b]), STORED[ORDER][5:7])


def test_pairs_side_by_side_come_half_a_head_apart():
    """Two heads of 6 entries, of which 4 rotate: worked out by hand."""
    assert half_rotation_rows(2, 6, 4).order.tolist() == [0, 2, 1, 3, 4, 5, 6, 8, 7, 9, 10, 11]


def test_what_does_not_fit_is_said():
    for steps in ((Rows(0, 13),), (TakeRows(np.array([12])),), (Transposed(5),), (Reshaped((5, 5)),)):
        with pytest.raises(ValueError, match="has"):
            SourceRef("x", steps=steps).shape(STORED.shape)
    with pytest.raises(ValueError, match="no entry 12"):
        SourceRef("x", 12).shape(STORED.shape)
