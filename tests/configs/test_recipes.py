"""The recipes are the published ones, iteration by iteration."""

import math

import pytest
import torch
from tests.support.suite_configs import build, load
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

SIZES = [('t', 0.1), ('s', 0.2), ('b', 0.3)]


def augmentations(config):
    pipeline = config.train_dataloader.dataset.pipeline
    return {step.type: step for step in pipeline}


@pytest.mark.parametrize(
    ('name', 'weight_decay', 'exempt'),
    [('retinanet', 1e-4, False), ('maskrcnn', 0.05, True)],
)
@pytest.mark.parametrize(('size', 'drop_path'), SIZES)
def test_detection(name, weight_decay, exempt, size, drop_path):
    config = load(f'configs/detection/{name}_transxnet_{size}.py')
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr) == ('AdamW', 1e-4)
    assert optimizer.weight_decay == weight_decay
    assert ('paramwise_cfg' in config.optim_wrapper) == exempt
    assert config.model.backbone.arch == size
    assert config.model.backbone.drop_path_rate == drop_path
    checkpoint = config.model.backbone.init_cfg.checkpoint
    assert checkpoint == f'transxnet://{size}'
    assert config.train_dataloader.batch_size == 2
    assert config.auto_scale_lr.base_batch_size == 16
    assert config.train_cfg.max_epochs == 12
    assert tuple(augmentations(config)['Resize'].scale) == (1333, 800)
    assert config.model.data_preprocessor.pad_size_divisor == 32


@pytest.mark.parametrize('algorithm', ['maskrcnn', 'cascade_maskrcnn'])
@pytest.mark.parametrize(('size', 'drop_path'), SIZES)
def test_3x(algorithm, size, drop_path):
    config = load(f'configs/detection/{algorithm}_transxnet_{size}_ms_3x.py')
    assert config.model.backbone.drop_path_rate == drop_path
    assert config.train_cfg.max_epochs == 36
    assert config.param_scheduler[1].milestones == [27, 33]
    choices = augmentations(config)['RandomChoice'].transforms
    assert len(choices[0][0].scales) == 11
    assert config.optim_wrapper.optimizer.weight_decay == 0.05


@pytest.mark.parametrize(
    ('size', 'drop_path', 'ema', 'edge'),
    [
        ('t', 0.1, 2e-4, 248),
        ('s', 0.2, 1.5e-4, 248),
        ('b', 0.4, 1.5e-4, 235),
    ],
)
def test_classification(size, drop_path, ema, edge):
    config = load(f'configs/classification/transxnet_{size}.py')
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.weight_decay) == (2e-3, 0.05)
    assert config.optim_wrapper.type == 'MixedPrecisionOptimWrapper'
    assert 'clip_grad' not in config.optim_wrapper
    assert config.train_cfg.max_epochs == 300
    assert config.train_dataloader.batch_size == 128
    assert config.auto_scale_lr.base_batch_size == 1024
    assert config.model.backbone.drop_path_rate == drop_path
    (hook,) = config.custom_hooks
    assert (hook.type, hook.momentum) == ('EMAHook', ema)
    mix = {one.type: one.alpha for one in config.model.train_cfg.augments}
    assert mix == dict(Mixup=0.8, CutMix=1.0)
    assert config.model.head.loss.label_smooth_val == 0.1
    steps = augmentations(config)
    assert steps['RandAugment'].magnitude_level == 9
    assert steps['RandAugment'].magnitude_std == 0.5
    assert steps['RandAugment'].policies == 'timm_increasing'
    assert steps['RandomErasing'].erase_prob == 0.25
    assert steps['RandomErasing'].mode == 'rand'
    resize = config.test_dataloader.dataset.pipeline[1]
    assert (resize.scale, resize.interpolation) == (edge, 'bicubic')
    assert config.val_dataloader.dataset.pipeline[1].scale == edge


def test_fine_tuning_at_384():
    config = load('configs/classification/transxnet_b_384.py')
    assert config.model.backbone.image_size == 384
    assert config.load_from == 'transxnet://b'
    assert config.model.train_cfg is None
    assert augmentations(config)['RandomResizedCrop'].scale == 384
    crop = config.test_dataloader.dataset.pipeline[2]
    assert crop.crop_size == 384
    assert config.train_cfg.max_epochs == config.param_scheduler.T_max == 30


@pytest.mark.parametrize(('size', 'drop_path'), SIZES)
def test_semantic_fpn(size, drop_path):
    config = load(f'configs/segmentation/sfpn_transxnet_{size}.py')
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.weight_decay) == (2e-4, 1e-4)
    assert config.optim_wrapper.type == 'OptimWrapper'  # not in half
    assert 'paramwise_cfg' not in config.optim_wrapper
    assert config.train_cfg.max_iters == 80000
    assert config.train_cfg.val_interval == 4000
    assert config.train_dataloader.batch_size == 4
    assert config.auto_scale_lr.base_batch_size == 32
    assert config.model.backbone.drop_path_rate == drop_path
    test = {s.type: s for s in config.test_dataloader.dataset.pipeline}
    assert tuple(test['Resize'].scale) == (2048, 512)
    assert test['ResizeToMultiple'].size_divisor == 32


@pytest.mark.parametrize(('size', 'drop_path'), SIZES)
def test_upernet(size, drop_path):
    config = load(f'configs/segmentation/upernet_transxnet_{size}.py')
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.weight_decay) == (6e-5, 0.01)
    assert config.train_cfg.max_iters == 160000
    assert config.train_dataloader.batch_size == 2
    assert config.model.backbone.drop_path_rate == drop_path
    auxiliary = config.model.auxiliary_head
    assert (auxiliary.in_index, auxiliary.channels) == (2, 256)
    assert auxiliary.loss_decode.loss_weight == 0.4
    assert config.model.decode_head.channels == 512


def decays(name):
    """Weight decay of each parameter of a config's model."""
    config = load(name)
    model = build(config, 'meta')
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    by_id = {
        id(p): group['weight_decay']
        for group in wrapper.optimizer.param_groups
        for p in group['params']
    }
    return {n: by_id[id(p)] for n, p in model.named_parameters()}, model


def test_mask_rcnn_decays_all_but_norms():
    values, _ = decays('configs/detection/maskrcnn_transxnet_t.py')
    assert values['backbone.relative_pos_enc.0'] == 0.05
    for name, value in values.items():
        assert value == (0 if 'norm' in name else 0.05), name


@pytest.mark.parametrize('name', ['retinanet', 'sfpn'])
def test_all_is_decayed(name):
    folder = 'detection' if name == 'retinanet' else 'segmentation'
    values, _ = decays(f'configs/{folder}/{name}_transxnet_t.py')
    assert {*values.values()} == {1e-4}


def test_upernet_decays_neither_norms_nor_tables():
    values, _ = decays('configs/segmentation/upernet_transxnet_t.py')
    for name, value in values.items():
        free = 'norm' in name or 'relative_pos_enc' in name
        assert value == (0 if free else 0.01), name


def test_classifier_decays_as_timm():
    """No decay for biases and what has one dimension."""
    values, model = decays('configs/classification/transxnet_t.py')
    for name, parameter in model.named_parameters():
        free = parameter.ndim <= 1 or name.endswith('.bias')
        assert values[name] == (0 if free else 0.05), name


def rates(config, iterations, per_epoch, wanted):
    """The rate at the wanted iterations, stepped through as the Runner."""
    base = config.optim_wrapper.optimizer.lr
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=base)
    schedulers = config.param_scheduler
    if not isinstance(schedulers, list):
        schedulers = [schedulers]
    schedulers = [
        PARAM_SCHEDULERS.build(dict(optimizer=optimizer, **scheduler))
        for scheduler in schedulers
    ]
    optimizer.step()  # torch wants one before the schedulers'
    found = {}
    for iteration in range(iterations):
        if iteration in wanted:
            found[iteration] = optimizer.param_groups[0]['lr']
        for scheduler in schedulers:
            if not scheduler.by_epoch or (iteration + 1) % per_epoch == 0:
                scheduler.step()
    assert len(found) == len(wanted)
    return found


def warmed(rate, iteration, length, ratio):
    """mmcv 1.x: the rate of the schedule, times the linear warm-up."""
    return rate * (1 - (1 - min(iteration / length, 1)) * (1 - ratio))


@pytest.mark.parametrize(
    ('name', 'epochs', 'milestones'),
    [
        ('retinanet_transxnet_t', 12, (8, 11)),
        ('maskrcnn_transxnet_t', 12, (8, 11)),
        ('cascade_maskrcnn_transxnet_t_ms_3x', 36, (27, 33)),
    ],
)
def test_rate_of_detectors(name, epochs, milestones):
    per_epoch = 600
    config = load(f'configs/detection/{name}.py')
    edges = [m * per_epoch + d for m in milestones for d in (-1, 0)]
    wanted = [0, 1, 250, 499, 500, 501, *edges, epochs * per_epoch - 1]
    found = rates(config, epochs * per_epoch, per_epoch, wanted)
    for iteration, rate in found.items():
        passed = sum(iteration >= m * per_epoch for m in milestones)
        expected = warmed(1e-4 * 0.1**passed, iteration, 500, 0.001)
        assert rate == pytest.approx(expected, rel=1e-6), iteration


def test_rate_of_semantic_fpn():
    config = load('configs/segmentation/sfpn_transxnet_t.py')
    wanted = [0, 1, 500, 999, 1000, 1001, 40000, 79000, 79999]
    for iteration, rate in rates(config, 80000, 1, wanted).items():
        cosine = (1 + math.cos(math.pi * iteration / 80000)) / 2
        regular = 2e-12 + (2e-4 - 2e-12) * cosine
        expected = warmed(regular, iteration, 1000, 0.1)
        assert rate == pytest.approx(expected, rel=1e-5), iteration


def test_rate_of_upernet():
    config = load('configs/segmentation/upernet_transxnet_t.py')
    wanted = [0, 1, 750, 1499, 1500, 1501, 80000, 159000, 159999]
    for iteration, rate in rates(config, 160000, 1, wanted).items():
        regular = 6e-5 * (1 - iteration / 160000)
        expected = warmed(regular, iteration, 1500, 1e-6)
        assert rate == pytest.approx(expected, rel=1e-5), iteration


def test_rate_of_classifiers_is_timms():
    """A rate for each epoch; the warm-up takes the cosine's place."""
    timm_scheduler = pytest.importorskip('timm.scheduler')
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=2e-3)
    theirs = timm_scheduler.CosineLRScheduler(
        optimizer,
        t_initial=300,
        lr_min=1e-5,
        warmup_t=5,
        warmup_lr_init=1e-6,
    )
    config = load('configs/classification/transxnet_t.py')
    found = rates(config, 300 * 3, 3, list(range(900)))
    for iteration, rate in found.items():
        (expected,) = theirs._get_lr(iteration // 3)
        assert rate == pytest.approx(expected, rel=1e-9), iteration
    assert found[0] == 1e-6
    assert found[5 * 3] == pytest.approx(1.99864e-3, rel=1e-4)
