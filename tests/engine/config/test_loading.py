"""Options of the command line must reach something."""

import pytest

import mmtransxnet  # noqa: F401
from mmtransxnet.engine import UserError, load_config, report_user_errors
from tests.support.paths import ROOT

pytestmark = pytest.mark.distribution

CONFIG = str(ROOT / 'configs/detection/maskrcnn_transxnet_t_digits.py')


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('model.backbone.with_cp', True),
        ('model.backbone.drop_rate', 0.1),  # taken, though not in the config
        ('model.rpn_head.num_convs', 2),  # taken by a parent's constructor
        ('model.backbone.init_cfg.checkpoint', 'x.pth'),  # None before
        ('train_dataloader.pin_memory', True),
        ('train_dataloader.num_batch_per_epoch', 3),
        ('optim_wrapper.accumulative_counts', 2),
        ('optim_wrapper.paramwise_cfg.custom_keys.fc.lr_mult', 0.1),
        ('param_scheduler.0.end', 10),
        ('default_hooks.checkpoint.save_best', 'auto'),
        ('default_hooks.stop.type', 'EarlyStoppingHook'),
        ('randomness.seed', 1),
        ('find_unused_parameters', True),
        ('resume', True),
    ],
)
def test_known_options_are_merged(key, value):
    config = load_config(CONFIG, {key: value})
    for part in key.split('.'):
        config = config[int(part) if part.isdigit() else part]
    assert config == value


@pytest.mark.parametrize(
    ('key', 'named'),
    [
        ('modl.backbone.arch', "did you mean 'model'"),
        ('model.backbone.with_cpp', "did you mean 'with_cp'"),
        ('model.neck.in_channel', "did you mean 'in_channels'"),
        ('model.roi_head.bbox_head.foo', 'bbox_head.foo'),
        ('model.test_cfg.rcnn.score_threshold', 'score_threshold'),
        ('train_dataloader.batchsize', "did you mean 'batch_size'"),
        ('train_cfg.max_epoch', "did you mean 'max_epochs'"),
        ('optim_wrapper.optimizer.wd', 'weight_decay'),
        ('param_scheduler.0.foo', 'start_factor'),
        ('param_scheduler.5.end', 'param_scheduler.5.end'),
        ('randomness.sed', "did you mean 'seed'"),
    ],
)
def test_unknown_options_are_named(key, named):
    with pytest.raises(UserError, match='--cfg-options') as error:
        load_config(CONFIG, {key: 1})
    assert named in str(error.value)
    assert '\n' not in str(error.value)


def test_missing_config_suggests_neighbours():
    with pytest.raises(UserError, match='did you mean maskrcnn_transxnet_t'):
        load_config(CONFIG.replace('_t_digits', '_t_digit'))


def test_errors_end_without_traceback(capsys):
    with pytest.raises(SystemExit) as stop, report_user_errors():
        raise UserError('no data')
    assert stop.value.code == 2
    assert capsys.readouterr().err == 'error: no data\n'
