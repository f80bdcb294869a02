from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.windows import windows
from tests.support.fuzz import fuzz


def test_a_picture_that_fits_is_one_window():
    assert windows(48, 64, 64) == [(0, 0, 64, 48)]


def test_the_last_ones_are_shifted_inwards():
    assert windows(10, 25, 10, 0.2) == [
        (0, 0, 10, 10),
        (8, 0, 10, 10),
        (15, 0, 10, 10),
    ]


def test_rows_come_first():
    assert windows(6, 8, 4, 0) == [
        (0, 0, 4, 4),
        (4, 0, 4, 4),
        (0, 2, 4, 4),
        (4, 2, 4, 4),
    ]


@fuzz(30)
@given(st.data())
def test_they_cover_everything_and_overlap(data):
    length = data.draw(st.integers(1, 300))
    size = data.draw(st.integers(1, 350))
    overlap = data.draw(st.floats(0, 0.95))
    lefts = [left for left, *_ in windows(1, length, size, overlap)]
    side = min(size, length)
    assert lefts[0] == 0
    assert lefts[-1] + side == length
    assert sorted(set(lefts)) == lefts
    for one, following in pairwise(lefts):
        common = one + size - following
        assert common >= min(size - 1, size * overlap - 1e-9)


@pytest.mark.parametrize(
    ('arguments', 'part'),
    [
        ((0, 5, 4), 'no windows'),
        ((5, 5, 0), 'at least 1'),
        ((5, 5, 4, 1.0), 'below 1'),
        ((5, 5, 4, float('nan')), 'below 1'),
    ],
)
def test_what_cannot_be_covered_is_an_error(arguments, part):
    with pytest.raises(UserError, match=part):
        windows(*arguments)
