"""Count a training step of a config: which batch fits on a GPU."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmtransxnet.analysis.complexity import regions, roi_stages
from mmtransxnet.benchmark.cost.counter import Cost
from mmtransxnet.benchmark.cost.step import autocast, count, remove_data
from mmtransxnet.utils.build import build_model
from mmtransxnet.utils.errors import UserError

NOT_COUNTED = (
    'loading and augmenting, and normalising the images',
    "RoIAlign, assigning and sampling boxes, the detectors' loss functions "
    '(the mean of the squared outputs stands for them)',
    'workspaces of convolutions and matrix products',
    "DistributedDataParallel's buckets (another copy of the gradients)",
)


def count_recipe(config: Config, batch: int, dtype: torch.dtype) -> Cost:
    """Count a training step of a config, as on one GPU.

    Weights, gradients, the optimizer's state and an average of the weights,
    if there is one, are included in the memory.

    Args:
        config: The config.
        batch: Number of images.
        dtype: Type of autocast; float32 for none.

    Raises:
        UserError: The model is of an unknown kind.
    """
    height, width = training_size(config)
    model = build_model(config, 'meta').train()
    with FakeTensorMode():
        remove_data(model)
        wrapper = _optim_wrapper(model, config)
        image = torch.empty(batch, 3, height, width)

        def step(images: Tensor) -> None:
            with autocast(dtype):
                loss = _loss(model, images)
            wrapper.update_params(loss)

        others = [
            value
            for state in wrapper.optimizer.state.values()
            for value in state.values()
        ]
        if has_average(config):
            others += [torch.empty_like(p) for p in model.parameters()]
        return count(step, model, image, others=others)


def training_size(config: Config) -> tuple[int, int]:
    """Largest height and width of the training images, padded, in pixels.

    Without a size in the pipeline, that for which the backbone is made.

    Raises:
        UserError: Neither of the two says it.
    """
    loader = config.train_dataloader
    size: tuple[int, int] | None = None
    for transform in _transforms(loader.dataset):
        size = _size_after(transform) or size
    if size is None:
        if 'image_size' not in config.model.get('backbone', {}):
            raise UserError(
                'the training pipeline sets no size of the images (no scale '
                'and no crop_size), so a step cannot be estimated'
            )
        size = _pair(config.model.backbone.image_size)
    sampler = (loader.get('batch_sampler') or {}).get('type')
    if (
        config.default_scope == 'mmdet'
        and sampler != 'AspectRatioBatchSampler'
    ):
        size = max(size), max(size)
    preprocessor = config.model.get('data_preprocessor') or {}
    divisor = preprocessor.get('pad_size_divisor', 1)
    height, width = (math.ceil(n / divisor) * divisor for n in size)
    return height, width


def training_dtype(config: Config) -> torch.dtype:
    """Type in which autocast of the config computes."""
    wrapper = config.optim_wrapper
    if wrapper.type not in ('AmpOptimWrapper', 'MixedPrecisionOptimWrapper'):
        return torch.float32
    return getattr(torch, wrapper.get('dtype') or 'float16')


def has_average(config: Config) -> bool:
    """Whether the run keeps an average of the weights."""
    hooks = config.get('custom_hooks') or []
    return any(hook.get('type') == 'EMAHook' for hook in hooks)


def _transforms(value: Any) -> Iterator[Mapping]:
    """All transforms of a data set's pipeline, also nested ones, in order."""
    if isinstance(value, Mapping):
        for name in ('dataset', 'pipeline', 'transforms'):
            yield from _transforms(value.get(name))
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _transforms(item)


def _size_after(transform: Mapping) -> tuple[int, int] | None:
    """Largest height and width after a transform, None if it sets none."""
    if 'crop_size' in transform:
        return _pair(transform['crop_size'])
    scales = transform.get('scales') or [transform.get('scale')]
    if not all(isinstance(s, int | list | tuple) for s in scales):
        return None
    # OpenMMLab's scales are (long side, short side).
    short, long = max(tuple(sorted(_pair(s))) for s in scales)
    factor = max(transform.get('ratio_range', [1]))
    return int(short * factor), int(long * factor)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _optim_wrapper(model: nn.Module, config: Config) -> Any:
    """The wrapper of the config with the state that a first step creates.

    Loss scaling is left out: it reads and writes the gradients once more.
    """
    settings = config.optim_wrapper.copy()
    for name in ('loss_scale', 'dtype'):
        settings.pop(name, None)
    settings.type = 'OptimWrapper'
    # The fused step: the other one reads a counter.
    settings.optimizer = dict(settings.optimizer, fused=True)
    wrapper = build_optim_wrapper(model, settings)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter)
    wrapper.optimizer.step()
    wrapper.optimizer.zero_grad()
    return wrapper


def _loss(model: Any, images: Tensor) -> Tensor:
    """A loss of the model, with fixed numbers of regions and labels."""
    features = model.extract_feat(images)
    if hasattr(model, 'decode_head'):
        return _segmentation_loss(model, features, images)
    if hasattr(model, 'roi_head'):
        outputs = [*model.rpn_head(features)]
        outputs += _roi_outputs(model.roi_head, images.size(0))
    elif hasattr(model, 'bbox_head'):
        outputs = [*model.bbox_head(features)]
    elif hasattr(model, 'head'):
        scores = model.head(features).float()
        return F.cross_entropy(scores, torch.empty_like(scores))
    else:
        raise UserError(
            f'{type(model).__name__}: only classifiers, segmentors and '
            'detectors with dense heads and RoI heads can be estimated'
        )
    tensors = [t for out in outputs for t in _flat(out)]
    return sum((t.float().square().mean() for t in tensors), torch.zeros(()))


def _segmentation_loss(model: Any, features: Any, images: Tensor) -> Tensor:
    """Cross-entropy of all pixels, of the heads that the model has."""
    heads = [model.decode_head, getattr(model, 'auxiliary_head', None)]
    labels = torch.empty(images.size(0), *images.shape[2:], dtype=torch.long)
    total = torch.zeros(())
    for head in filter(None, heads):
        scores = F.interpolate(
            head(features), size=images.shape[2:], mode='bilinear'
        )
        total = total + F.cross_entropy(scores.float(), labels)
    return total


def _roi_outputs(heads: Any, batch: int) -> list[Any]:
    """Outputs of the heads for as many regions as the sampler draws."""
    stages = heads.train_cfg
    sampler = (stages[0] if isinstance(stages, list) else stages).sampler
    count = batch * sampler.num
    outputs = []
    for extractor, head in roi_stages(
        heads.bbox_roi_extractor, heads.bbox_head
    ):
        outputs += head(regions(extractor, count, 'cpu').requires_grad_())
    if heads.with_mask:
        positive = int(count * sampler.pos_fraction)
        for extractor, head in roi_stages(
            heads.mask_roi_extractor, heads.mask_head
        ):
            drawn = regions(extractor, positive, 'cpu').requires_grad_()
            outputs.append(head(drawn))
    return outputs


def _flat(value: Any) -> list[Tensor]:
    """Tensors of a nested list."""
    if isinstance(value, Tensor):
        return [value]
    return [t for item in value for t in _flat(item)]
