"""Helpers of the operators."""

from typing import Any

import torch
from torch import Tensor

_LOW_PRECISION = (torch.float16, torch.bfloat16)


def kernels() -> Any:
    """Return the namespace of torchvision's compiled operators.

    torchvision takes longer to import than mmcv does, so it is imported by
    the first operator that runs and not by ``import mmtransxnet``.
    """
    import torchvision  # noqa: F401  (registers torch.ops.torchvision)

    return torch.ops.torchvision


def upcast(tensor: Tensor) -> Tensor:
    """Return float16 and bfloat16 tensors in float32, others as they are.

    Coordinates need more than 8 or 11 bits, and few CPU kernels exist for
    these types: they are stored as mmcv stores them, but computed in float32.
    """
    return tensor.float() if tensor.dtype in _LOW_PRECISION else tensor


def plane_numbers(images: Tensor, shape: torch.Size) -> Tensor:
    """Number the (image, channel) planes that regions read.

    Args:
        images (Tensor): Image of each region, int64, shape (N,).
        shape (torch.Size): Of the feature map, (B, C, H, W).

    Returns:
        Tensor: ``image * C + channel``, shape (N, C, 1, 1).
    """
    channels = torch.arange(shape[1], device=images.device)
    return (images[:, None] * shape[1] + channels)[..., None, None]
