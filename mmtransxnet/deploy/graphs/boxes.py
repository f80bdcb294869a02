"""Boxes from a head's regression outputs, as mmdet decodes them."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from mmtransxnet.utils.errors import UserError

# The default of mmdet's coder, which its heads never change.
_MAX_LOG_RATIO = abs(math.log(16 / 1000))


class BoxDecoder(nn.Module):
    """``DeltaXYWHBBoxCoder.decode`` for a batch.

    Args:
        coder: The coder of a trained head.

    Raises:
        UserError: It is another coder, or one that leaves boxes unclipped.
    """

    means: Tensor
    stds: Tensor

    def __init__(self, coder: Any) -> None:
        super().__init__()
        name = type(coder).__name__
        # NMS and the padding rely on corners that are not negative.
        if (
            name != 'DeltaXYWHBBoxCoder'
            or not coder.clip_border
            or coder.add_ctr_clamp
        ):
            raise UserError(
                f'a bbox_coder {name} cannot be exported: expected a '
                'DeltaXYWHBBoxCoder with clip_border=True and '
                'add_ctr_clamp=False'
            )
        self.register_buffer('means', torch.tensor(coder.means).float())
        self.register_buffer('stds', torch.tensor(coder.stds).float())

    def forward(self, boxes: Tensor, deltas: Tensor, sizes: Tensor) -> Tensor:
        """Move and scale boxes, and clip them to their picture.

        Args:
            boxes: Corners ``(B, ..., 4)`` in pixels.
            deltas: Outputs of the head ``(B, ..., 4)``.
            sizes: Heights and widths of the pictures ``(B, 2)``.

        Returns:
            Corners ``(B, ..., 4)``.
        """
        deltas = deltas * self.stds + self.means
        centre = (boxes[..., :2] + boxes[..., 2:]) * 0.5
        extent = boxes[..., 2:] - boxes[..., :2]
        centre = centre + extent * deltas[..., :2]
        ratio = deltas[..., 2:].clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO).exp()
        half = extent * ratio * 0.5
        corners = torch.cat([centre - half, centre + half], dim=-1)
        limits = sizes.flip(1).to(corners).repeat(1, 2)
        limits = limits.reshape(-1, *[1] * (corners.ndim - 2), 4)
        return torch.minimum(corners.clamp(min=0), limits)


def larger_than(boxes: Tensor, size: float) -> Tensor:
    """Whether width and height are above ``size``, ``(...,)``."""
    extent = boxes[..., 2:] - boxes[..., :2]
    return (extent > size).all(dim=-1)


def rows(table: Tensor, index: Tensor) -> Tensor:
    """Take rows of each sample.

    Args:
        table: ``(B, N, C)``.
        index: Rows of each sample ``(B, K)``.

    Returns:
        ``(B, K, C)``.
    """
    return table.gather(1, index[..., None].expand(-1, -1, table.size(2)))
