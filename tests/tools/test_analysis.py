"""The tools that look into a trained model, as users start them."""

import json

import cv2
import numpy as np
import pytest
import torch

from tests.support.models import fill_by_name
from tests.support.suite_configs import build, load
from tests.support.tools import with_path

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


@pytest.mark.parametrize('name', ['erf.py', 'cam.py', 'pointing_game.py'])
def test_places_that_take_no_file(tool, configs, tmp_path, name):
    """Told before any work: the checkpoint is not even looked for."""
    picture = tmp_path / 'picture.png'
    cv2.imwrite(str(picture), np.zeros((64, 64, 3), 'uint8'))
    for out, message in (
        (tmp_path, 'is a folder'),
        (picture, 'is a picture that is read'),
        (picture / 'out.png', 'cannot write to this folder'),
    ):
        status, said = tool(
            f'analysis/{name}',
            *(configs['detector'], 'none.pth', picture, '--out', out),
        )
        assert status == 2, said
        assert message in said
        assert 'Traceback' not in said


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


def test_a_package_that_is_missing(tool, configs, checkpoints, tmp_path):
    """One line, not a traceback."""
    (tmp_path / 'pytorch_grad_cam.py').write_text('raise ImportError("none")')
    picture = tmp_path / 'picture.png'
    cv2.imwrite(str(picture), np.zeros((64, 64, 3), 'uint8'))
    status, said = tool(
        'analysis/cam.py',
        *(configs['classifier'], checkpoints['classifier'], picture),
        *('--out', tmp_path / 'cam.png'),
        PYTHONPATH=with_path(tmp_path),
    )
    assert status == 2
    assert 'pip install grad-cam' in said
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


def test_pointing_game(tool, configs, checkpoints, digits, tmp_path):
    out = tmp_path / 'new/hits.jsonl'
    status, said = tool(
        'analysis/pointing_game.py',
        configs['detector'],
        checkpoints['detector'],
        digits / 'coco',
        *('--number', 1, '--min-score', 0.3, '--stage', 2, 4, '--out', out),
        COLUMNS='160',
    )
    assert status == 0, said
    for text in ('detections in 1 pictures', 'Eigen-CAM, random weights'):
        assert text in said
    hits = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(hits) % 8 == 0  # two stages, methods and kinds of weights
    assert {hit['stage'] for hit in hits} == {1, 3}
