"""Tiny models of the three tasks, for inference."""

import numpy as np
import pytest

from mmtransxnet.apis import Inferencer
from tests.support.tiny_configs import write_checkpoints, write_configs

TASKS = ('classifier', 'detector', 'segmentor')


@pytest.fixture(scope='session')
def tiny(tmp_path_factory):
    """Config and checkpoint of each task."""
    folder = tmp_path_factory.mktemp('tiny')
    configs = write_configs(folder)
    checkpoints = write_checkpoints(folder, configs)
    return {task: (configs[task], checkpoints[task]) for task in TASKS}


@pytest.fixture(scope='session')
def models(tiny):
    models = {task: Inferencer(*tiny[task], 'cpu') for task in TASKS}
    # With the known weights, all masks would be empty.
    head = models['detector'].model.roi_head.mask_head
    head.conv_logits.bias.data += 10
    return models


@pytest.fixture(scope='session')
def pictures(tmp_path_factory):
    """Pictures of three sizes, and a broken one in the middle."""
    import mmcv

    folder = tmp_path_factory.mktemp('pictures')
    draw = np.random.default_rng(0)
    shapes = [(96, 128), (128, 96), (96, 128), (100, 128), (96, 128)]
    for index, shape in enumerate([*shapes, (64, 64), (128, 96)]):
        small = draw.integers(0, 256, (6, 8, 3), 'uint8')
        image = mmcv.imresize(small, shape[::-1])
        mmcv.imwrite(image, str(folder / f'{index}.png'))
    whole = (folder / '3.png').read_bytes()
    (folder / '3.torn.png').write_bytes(whole[: len(whole) // 2])
    return folder
