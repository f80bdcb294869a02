"""Every config parses, builds, trains a step and predicts."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

import mmtransxnet  # noqa: F401

pytestmark = pytest.mark.distribution

CONFIGS = sorted(
    path.relative_to(ROOT)
    for path in (ROOT / 'configs').glob('*/*.py')
    if path.parent.name != '_base_'
)
DETECTORS = [path for path in CONFIGS if path.parent.name == 'detection']


def names(paths):
    return [path.stem for path in paths]


def load(path: Path) -> Config:
    config = Config.fromfile(ROOT / path)
    init_default_scope(config.default_scope)
    return config


def build(config: Config) -> torch.nn.Module:
    """Build the model without fetching published weights."""
    model = copy.deepcopy(config.model)
    model.backbone.init_cfg = None
    preprocessor = config.get('data_preprocessor')
    if preprocessor is not None:
        model.setdefault('data_preprocessor', preprocessor)
    return MODELS.build(model)


def test_there_are_configs():
    assert len(DETECTORS) == 7
    assert len(CONFIGS) == 8


@pytest.mark.parametrize('path', CONFIGS, ids=names(CONFIGS))
def test_model_optimizer_and_channels(path):
    config = load(path)
    model = build(config)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    trained = [p for p in model.parameters() if p.requires_grad]
    grouped = [p for g in wrapper.optimizer.param_groups for p in g['params']]
    assert len({*map(id, trained)} - {*map(id, grouped)}) == 0
    keys = config.optim_wrapper.get('paramwise_cfg', {}).get('custom_keys', {})
    parameters = [name for name, _ in model.named_parameters()]
    for key in keys:
        assert any(key in name for name in parameters), key
    if hasattr(model.neck, 'in_channels'):
        assert tuple(model.neck.in_channels) == model.backbone.out_channels
    else:
        assert model.head.in_channels == model.backbone.out_channels[-1]


@pytest.mark.parametrize(
    ('name', 'weight_decay', 'exempt'),
    [('retinanet', 1e-4, False), ('maskrcnn', 0.05, True)],
)
@pytest.mark.parametrize(
    ('size', 'drop_path'), [('t', 0.1), ('s', 0.2), ('b', 0.3)]
)
def test_published_detection_recipe(
    name, weight_decay, exempt, size, drop_path
):
    config = load(Path(f'configs/detection/{name}_transxnet_{size}.py'))
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr) == ('AdamW', 1e-4)
    assert optimizer.weight_decay == weight_decay
    assert ('paramwise_cfg' in config.optim_wrapper) == exempt
    assert config.model.backbone.arch == size
    assert config.model.backbone.drop_path_rate == drop_path
    checkpoint = config.model.backbone.init_cfg.checkpoint
    assert checkpoint.endswith(f'/transx-{size}.pth.tar')
    assert config.train_dataloader.batch_size == 2
    assert config.auto_scale_lr.base_batch_size == 16
    assert config.train_cfg.max_epochs == 12
    resize = config.train_dataloader.dataset.pipeline[2]
    assert (resize.type, tuple(resize.scale)) == ('Resize', (1333, 800))
    assert config.model.data_preprocessor.pad_size_divisor == 32


def test_mask_rcnn_decays_all_but_norms():
    config = load(Path('configs/detection/maskrcnn_transxnet_t.py'))
    model = build(config)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    decay = {
        id(p): group['weight_decay']
        for group in wrapper.optimizer.param_groups
        for p in group['params']
    }
    for name, parameter in model.named_parameters():
        expected = 0 if 'norm' in name else 0.05
        assert decay[id(parameter)] == expected, name


def published_rate(iteration: int, per_epoch: int) -> float:
    """mmcv 1.x: steps at epochs 8 and 11, times the linear warm-up."""
    epoch = iteration // per_epoch
    rate = 1e-4 * 0.1 ** ((epoch >= 8) + (epoch >= 11))
    warmup = 1 - (1 - min(iteration / 500, 1)) * (1 - 0.001)
    return rate * warmup


def test_detection_learning_rate_is_mmcv_1s():
    from mmengine.registry import PARAM_SCHEDULERS

    config = load(Path('configs/detection/maskrcnn_transxnet_t.py'))
    per_epoch = 700
    optimizer = torch.optim.AdamW([torch.zeros(1)], lr=1e-4)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(optimizer=optimizer, **scheduler))
        for scheduler in config.param_scheduler
    ]
    rates = []
    for iteration in range(12 * per_epoch):
        rates.append(optimizer.param_groups[0]['lr'])
        for scheduler in schedulers:
            if not scheduler.by_epoch or (iteration + 1) % per_epoch == 0:
                scheduler.step()
    for iteration in (0, 1, 250, 499, 500, 501, 5599, 5600, 7699, 7700, 8399):
        expected = published_rate(iteration, per_epoch)
        assert rates[iteration] == pytest.approx(expected, rel=1e-6)


def tiny_detection_input(config: Config):
    """Two images with two instances each."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    inputs, samples = [], []
    for _ in range(2):
        height, width = 64, 96
        bboxes = torch.tensor([[4.0, 4.0, 40.0, 44.0], [30, 10, 90, 60]])
        masks = np.zeros((2, height, width), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(
            masks, bboxes.int().tolist(), strict=True
        ):
            mask[y1:y2, x1:x2] = 1
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(height, width),
                ori_shape=(height, width),
                scale_factor=(1.0, 1.0),
                batch_input_shape=(height, width),
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=bboxes,
            labels=torch.tensor([1, 3]),
            masks=BitmapMasks(masks, height, width),
        )
        inputs.append(torch.randint(0, 256, (3, height, width)).byte())
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def shrink(config: Config) -> None:
    """Fewer proposals and regions: heads are slow on a CPU."""
    train = config.model.train_cfg
    if 'rpn_proposal' in train:
        train.rpn_proposal.update(nms_pre=64, max_per_img=16)
        train.rcnn.sampler.num = 8
    config.model.backbone.image_size = 64


def train_a_step(model: torch.nn.Module, config: Config, data: dict) -> None:
    """One step by hand, since the Runner's clears the gradients."""
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    model.train()
    losses = model(**model.data_preprocessor(data, True), mode='loss')
    loss, values = model.parse_losses(losses)
    assert all(value.isfinite().all() for value in values.values())
    loss.backward()
    before = [p.detach().clone() for p in model.parameters()]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f'{name} is not used'
        assert parameter.grad.isfinite().all(), name
    wrapper.step()
    moved = [
        not torch.equal(p, old)
        for p, old in zip(model.parameters(), before, strict=True)
    ]
    assert sum(moved) > 0.9 * len(moved)


@pytest.mark.parametrize('path', DETECTORS, ids=names(DETECTORS))
def test_detector_trains_a_step_and_predicts(path):
    config = load(path)
    shrink(config)
    model = build(config)
    train_a_step(model, config, tiny_detection_input(config))
    model.eval()
    with torch.no_grad():
        results = model.test_step(tiny_detection_input(config))
    assert len(results) == 2
    assert all(r.pred_instances.bboxes.size(1) == 4 for r in results)


def test_classifier_trains_a_step_and_predicts():
    from mmpretrain.structures import DataSample

    config = load(Path('configs/classification/transxnet_t_digits.py'))
    model = build(config)
    data = dict(
        inputs=[torch.randint(0, 256, (3, 64, 64)).byte() for _ in range(2)],
        data_samples=[DataSample().set_gt_label(i) for i in (3, 7)],
    )
    train_a_step(model, config, copy.deepcopy(data))
    model.eval()
    with torch.no_grad():
        results = model.test_step(data)
    assert [tuple(r.pred_score.shape) for r in results] == [(10,), (10,)]
