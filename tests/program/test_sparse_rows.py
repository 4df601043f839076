"""The non-zero entries of rows, as replays of sparse data take them."""

import numpy as np
import pytest

from fastscalar.program import _data


@pytest.mark.parametrize("float64", [True, False])
@pytest.mark.parametrize("width", [1, 3, 7, 8, 15, 16, 17, 31, 32, 33, 40, 64, 100, 784])
def test_entries_are_those_that_are_not_zero(width, float64):
    """With any number of them in each block of a vector, NaN and infinities among them; cut into parts or not."""
    draw = np.random.default_rng(width)
    data = draw.normal(size=(200, width)) * (draw.random((200, width)) < draw.random((200, 1)))
    data[draw.random(data.shape) < 0.02] = np.nan
    data[draw.random(data.shape) < 0.02] = -np.inf
    data[::17] = 0.0
    data[3::17] = 1.0
    data[5] = -0.0
    for parts in (1, 3):
        begin, column, value, border = _data.sparse_rows(data, float64, 1.0, parts)
        assert len(begin) == 200 * parts + 1
        for r, row in enumerate(data):
            first, stop = begin[r * parts], begin[(r + 1) * parts]
            there = np.flatnonzero(row != 0.0)
            np.testing.assert_array_equal(column[first:stop], there)
            np.testing.assert_array_equal(value[first:stop], row[there].astype("f8" if float64 else "f4"))
            for part in range(parts):
                some = column[begin[r * parts + part] : begin[r * parts + part + 1]]
                assert ((some >= border[part]) & (some < border[part + 1])).all()


def test_dense_data_have_none():
    assert _data.sparse_rows(np.ones((100, 10)), True, 0.5, 1) is None
