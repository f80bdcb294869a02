"""A micro run of each task."""

import pytest

from mmtransxnet.engine.runner.train import train, train_parser
from tests.support.tiny_configs import write_configs

FEW = {
    'classifier': ['train_cfg.max_iters=2', 'train_cfg.val_interval=2'],
    'detector': ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1'],
    'segmentor': ['train_cfg.max_iters=2', 'train_cfg.val_interval=2'],
}


@pytest.fixture(scope='session')
def runs(tmp_path_factory, digits):
    """Work directories of a micro run of each task, by name."""
    folder = tmp_path_factory.mktemp('runs')
    configs = write_configs(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('DIGITS_ROOT', str(digits))
        for name, options in FEW.items():
            arguments = [
                str(configs[name]), '--work-dir', str(folder / name),
                '--cfg-options', 'model.backbone.init_cfg=None', *options,
            ]  # fmt: skip
            train(train_parser('').parse_args(arguments))
    return folder
