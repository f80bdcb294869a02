"""Work ahead of its use."""

import threading
import time

import pytest
import torch

from mmtransxnet.apis.background import ahead, loading_threads


def test_order_and_bound():
    """Results are in order, and only so many items are read ahead."""
    read = []

    def items():
        for number in range(20):
            read.append(number)
            yield number

    def work(number):
        time.sleep(0.01 * (number % 3))
        return number**2

    with loading_threads() as pool:
        for index, value in enumerate(ahead(pool, items(), work, 4)):
            assert value == index**2
            assert len(read) <= index + 4
    assert len(read) == 20


def test_errors_come_at_their_turn():
    def work(number):
        return 1 // (number - 2)

    with loading_threads() as pool:
        values = ahead(pool, range(5), work, 3)
        assert [next(values), next(values)] == [-1, -1]
        with pytest.raises(ZeroDivisionError):
            next(values)


def test_loading_leaves_the_threads_of_the_model():
    before = torch.get_num_threads()
    with loading_threads() as pool:
        counts = list(ahead(pool, range(4), lambda _: _threads(), 4))
    assert {count for count, _ in counts} == {1}
    assert threading.get_ident() not in {thread for _, thread in counts}
    assert torch.get_num_threads() == before


def _threads():
    return torch.get_num_threads(), threading.get_ident()
