"""Pictures to quantise with."""

import numpy as np
import pytest
from PIL import Image

from mmtransxnet.deploy import calibration
from mmtransxnet.utils.errors import UserError
from tests.support.suite_configs import load


@pytest.fixture
def folder(tmp_path):
    """Seven pictures, as bright as their number."""
    for i in range(7):
        array = np.full((40, 40, 3), 10 * i, np.uint8)
        Image.fromarray(array).save(tmp_path / f'{i}.png')
    return str(tmp_path)


@pytest.fixture
def config():
    return load('configs/classification/transxnet_t_digits.py')


def test_pictures_are_drawn_evenly_from_the_first_to_the_last(
    folder, config, monkeypatch
):
    monkeypatch.setattr(calibration, 'MAX_PICTURES', 4)
    pictures = calibration.calibration_pictures(config, None, None, folder)
    assert [int(p.max()) // 10 for p in pictures] == [0, 2, 4, 6]
    assert {p.shape[0] for p in pictures} == {1}


def test_a_graph_of_a_constant_batch_gets_as_many(folder, config):
    pictures = calibration.calibration_pictures(config, None, 3, folder)
    assert len(pictures) == 7
    assert {p.shape[0] for p in pictures} == {3}


def test_another_size_than_the_graphs_is_named(folder, config):
    with pytest.raises(UserError, match=r'0\.png has 40 x 40 pixels'):
        calibration.calibration_pictures(config, (64, 64), None, folder)
