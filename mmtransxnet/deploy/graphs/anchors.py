"""Anchors of feature maps whose size is known in the graph only."""

from typing import Any

import torch
from torch import Tensor, nn

from mmtransxnet.utils.errors import UserError


class Anchors(nn.Module):
    """The anchors of mmdet's ``AnchorGenerator``.

    Args:
        generator: The generator of a trained head.

    Raises:
        UserError: It is another generator.
    """

    def __init__(self, generator: Any) -> None:
        super().__init__()
        if type(generator).__name__ != 'AnchorGenerator':
            raise UserError(
                f'anchors of a {type(generator).__name__} cannot be exported: '
                'expected an AnchorGenerator'
            )
        self.strides = [tuple(stride) for stride in generator.strides]
        self.names = [f'base_{i}' for i in range(len(self.strides))]
        for name, base in zip(self.names, generator.base_anchors, strict=True):
            self.register_buffer(name, base.float())

    def forward(self, level: int, height: int, width: int) -> Tensor:
        """All anchors of a level, in the order of mmdet.

        Args:
            level: Index of the feature map.
            height: Its height.
            width: Its width.

        Returns:
            Corners in pixels of the input ``(height * width * A, 4)``, the
            anchors of a position next to each other.
        """
        base = self.get_buffer(self.names[level])
        stride_x, stride_y = self.strides[level]
        x = torch.arange(width, device=base.device).to(base) * stride_x
        y = torch.arange(height, device=base.device).to(base) * stride_y
        x = x[None, :].expand(height, width)
        y = y[:, None].expand(height, width)
        shifts = torch.stack([x, y, x, y], dim=-1)
        return (base + shifts[:, :, None]).reshape(-1, 4)
