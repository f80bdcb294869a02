"""Parameters and multiply-adds of the models of all three tasks.

Counted by ``torch.utils.flop_counter`` on the meta device: only shapes are
computed, so even the largest detector takes seconds.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmtransxnet.kernels.settings import plain

_PROPOSALS = 1000
"""Regions that pass through a box head, as mmdet counts them."""

_MASKS = 100
"""Regions that pass through a mask head, likewise."""


def count_parameters(model: nn.Module) -> int:
    """Number of parameters of a model."""
    return sum(p.numel() for p in model.parameters())


def count_macs(model: nn.Module, height: int, width: int) -> int:
    """Count the multiply-adds of a model for one image.

    Convolutions, matrix products and attention are counted. The heads of a
    two-stage detector see 1000 boxes and 100 masks.

    Args:
        model: A model in evaluation mode, on the meta device; see
            :func:`mmtransxnet.utils.build.build_model`.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
    """
    image = torch.zeros(1, 3, height, width, device='meta')
    counter = FlopCounterMode(display=False)
    # The formula: kernels may pad.
    with torch.no_grad(), plain(), counter:
        if hasattr(model, 'roi_head'):
            _run_two_stages(model, image)
        else:
            model(image, mode='tensor')
    return counter.get_total_flops() // 2


def _run_two_stages(model: Any, image: Tensor) -> None:
    """Run all heads with a fixed number of regions."""
    model.rpn_head(model.extract_feat(image))
    heads = model.roi_head
    for extractor, head in roi_stages(
        heads.bbox_roi_extractor, heads.bbox_head
    ):
        head(regions(extractor, _PROPOSALS, 'meta'))
    if heads.with_mask:
        for extractor, head in roi_stages(
            heads.mask_roi_extractor, heads.mask_head
        ):
            head(regions(extractor, _MASKS, 'meta'))


def roi_stages(extractors: Any, heads: Any) -> Iterator[tuple[Any, Any]]:
    """Extractors and heads of each stage; one without a cascade."""
    if isinstance(heads, nn.ModuleList):
        yield from zip(extractors, heads, strict=True)
    else:
        yield extractors, heads


def regions(extractor: Any, count: int, device: str) -> Tensor:
    """Zeros of the shape that an extractor gives for ``count`` regions."""
    height, width = extractor.roi_layers[0].output_size
    shape = (count, extractor.out_channels, height, width)
    return torch.zeros(shape, device=device)
