"""What all deploy graphs have in common: names, example inputs, input."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from mmtransxnet.models.transxnet import MIN_SIZE

MAX_BATCH = 4096
MAX_SIZE = 8192
"""Upper bounds of dynamic dimensions, in images and pixels."""

Size = tuple[int, int]


class DeployForm(nn.Module):
    """A model as it is exported: pictures in, results out, all tensors.

    A subclass sets the class attributes, and its ``forward`` takes the inputs
    and returns a tuple of the outputs, in the order of their names. It adds
    inputs of its own by extending :meth:`example_inputs` and
    :meth:`dynamic_shapes`.

    Args:
        batch: Number of images; None for any.
        size: Height and width in pixels; None for any.
    """

    task: ClassVar[str]
    input_names: tuple[str, ...] = ('images',)
    output_names: tuple[str, ...]
    example_size: ClassVar[Size] = (96, 64)

    def __init__(self, batch: int | None, size: Size | None) -> None:
        super().__init__()
        self.batch = batch
        self.size = size

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Inputs to trace the graph with."""
        # No two dimensions that are dynamic may be equal, and none may be 1:
        # torch.export would take them for the same or for constants.
        height, width = self.size or self.example_size
        shape = (self.batch or 2, height, width, 3)
        return (torch.randint(256, shape, dtype=torch.uint8),)

    def inputs_of(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        """All inputs, by name, for pictures that fill their arrays.

        Args:
            pictures: Red, green, blue ``(B, H, W, 3)``, uint8.
        """
        return {'images': pictures}

    def reference(self, model: Any) -> Callable[..., tuple[Tensor, ...]]:
        """What an exported file is compared with, computed by PyTorch.

        A subclass may return the model's own ``predict`` in the same inputs
        and outputs, which tests the deploy form as well.

        Args:
            model: The model that this form was derived from.
        """
        return self

    def dynamic_shapes(self) -> tuple[Any, ...]:
        """Dynamic dimensions of each input, for ``torch.export``."""
        images: dict[int, Any] = {}
        if self.batch is None:
            images[0] = self.batch_dim()
        if self.size is None:
            # At the smallest size, the last map has one position, and
            # torch.export would make it a case of its own. The graph holds
            # there, too.
            images[1] = Dim('height', min=MIN_SIZE + 1, max=MAX_SIZE)
            images[2] = Dim('width', min=MIN_SIZE + 1, max=MAX_SIZE)
        return (images,)

    def batch_dim(self) -> Any:
        """The dimension of the batch, None if it is constant."""
        if self.batch is not None:
            return None
        return Dim('batch', min=1, max=MAX_BATCH)


class Normalise(nn.Module):
    """Pictures to the network's input, as the model's preprocessor.

    Args:
        preprocessor: Data preprocessor of mmdet, mmseg or mmpretrain.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, preprocessor: Any) -> None:
        super().__init__()
        mean = torch.zeros(3)
        std = torch.ones(3)
        if preprocessor._enable_normalize:
            mean = preprocessor.mean.flatten().float().expand(3)
            std = preprocessor.std.flatten().float().expand(3)
        # The pipelines read blue, green, red; mmpretrain names its flag
        # otherwise than the other libraries.
        self.bgr = not (
            getattr(preprocessor, 'to_rgb', False)
            or getattr(preprocessor, '_channel_conversion', False)
        )
        self.divisor = max(1, getattr(preprocessor, 'pad_size_divisor', 1))
        # Multiplied and added, which engines fuse into other operators.
        self.register_buffer('scale', (1 / std).view(1, 3, 1, 1))
        self.register_buffer('shift', (-mean / std).view(1, 3, 1, 1))
        self.mean: Sequence[float] = mean.tolist()
        self.std: Sequence[float] = std.tolist()

    def forward(self, images: Tensor) -> Tensor:
        """Normalise and pad with zeros at the bottom and on the right.

        Args:
            images: Red, green, blue ``(B, H, W, 3)``, uint8.

        Returns:
            Float tensor ``(B, 3, H', W')`` in the order of channels of the
            model, H' and W' multiples of the preprocessor's divisor.
        """
        # The cast is first: TensorRT has uint8 for inputs and outputs only.
        x = images.float().permute(0, 3, 1, 2)
        if self.bgr:
            x = x.flip(1)
        x = x * self.scale + self.shift
        if self.divisor == 1:
            return x
        height, width = x.size(2), x.size(3)
        return F.pad(x, (0, -width % self.divisor, 0, -height % self.divisor))


def preprocessed(model: Any, images: Tensor) -> Tensor:
    """The network's input, by the preprocessor of the library.

    Args:
        model: Model of mmdet, mmseg or mmpretrain.
        images: Red, green, blue ``(B, H, W, 3)``, uint8.

    Returns:
        Float tensor ``(B, 3, H', W')``.
    """
    # The pipelines read blue, green, red.
    stacked = images.flip(-1).permute(0, 3, 1, 2)
    mmpretrain = hasattr(model.data_preprocessor, 'to_rgb')
    inputs = stacked if mmpretrain else list(stacked)
    return model.data_preprocessor(dict(inputs=inputs))['inputs']
