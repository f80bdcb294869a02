"""The tools that look into a trained model, as users start them."""

import cv2
import numpy as np
import pytest
import torch

from tests.support.models import fill_by_name
from tests.support.suite_configs import build, load

TASKS = ['classifier', 'detector', 'segmentor']


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory, configs):
    """A checkpoint of each tiny model."""
    folder = tmp_path_factory.mktemp('checkpoints')
    paths = {}
    for task in TASKS:
        model = fill_by_name(build(load(configs[task])))
        paths[task] = folder / f'{task}.pth'
        torch.save({'state_dict': model.state_dict(), 'meta': {}}, paths[task])
    return paths


def assert_drawn(path):
    image = cv2.imread(str(path))
    assert image.shape[0] > 200 < image.shape[1]
    assert image.std() > 10


def test_receptive_field(tool, configs, checkpoints, digits, tmp_path):
    """Trained, untrained and another model; both kinds of weights."""
    out = tmp_path / 'new/erf.png'
    task = 'detector'
    status, said = tool(
        'analysis/erf.py',
        configs[task],
        checkpoints[task],
        digits / 'coco',
        *('--number', 2, '--size', 64, '--out', out, '--peers', 'resnet10t'),
        COLUMNS='160',
    )
    assert status == 0, said
    for text in (
        'random initialisation',
        'detector.pth',
        'resnet10t (random weights)',
        'stage 4 (stride 32)',
        '99%',
    ):
        assert text in said
    assert_drawn(out)


def test_receptive_field_errors(tool, configs, checkpoints, tmp_path):
    status, said = tool(
        'analysis/erf.py',
        configs['classifier'],
        checkpoints['classifier'],
        tmp_path / 'none.png',
        *('--out', tmp_path / 'erf.png'),
    )
    assert status == 2
    assert 'none.png does not exist' in said
    assert 'Traceback' not in said


@pytest.mark.parametrize('task', TASKS)
def test_class_activation(tool, configs, checkpoints, tmp_path, task):
    picture = tmp_path / 'picture.png'
    image = np.random.RandomState(0).randint(0, 256, (80, 120, 3))
    cv2.imwrite(str(picture), image)
    status, said = tool(
        'analysis/cam.py',
        configs[task],
        checkpoints[task],
        picture,
        *('--out', tmp_path / 'cam.png', '--stage', 3),
        *('--method', 'grad-cam', 'eigen-cam'),
    )
    assert status == 0, said
    assert_drawn(tmp_path / 'cam.png')


def test_dynamics(tool, configs, checkpoints, digits, tmp_path):
    """Folders are the classes."""
    status, said = tool(
        'analysis/dynamics.py',
        configs['classifier'],
        checkpoints['classifier'],
        digits / 'imagenet/val',
        *('--out', tmp_path / 'out', '--pixel', 0.2, 0.7),
    )
    assert status == 0, said
    for name in ('kernels', 'attention', 'scales', 'spread'):
        assert_drawn(tmp_path / f'out/{name}.png')
