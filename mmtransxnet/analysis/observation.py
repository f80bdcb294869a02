"""What the analyses share: a model that is observed and left unchanged."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmtransxnet.models import TransXNet
from mmtransxnet.utils.errors import UserError


@contextmanager
def observing(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients of parameters; restored at the end.

    Gradients of inputs and maps can be computed. Nothing is added to the
    gradients of a training that is under way.
    """
    modes = {module: module.training for module in model.modules()}
    trained = [p for p in model.parameters() if p.requires_grad]
    model.eval()
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for module, mode in modes.items():
            module.training = mode


def backbone_of(model: nn.Module) -> TransXNet:
    """The TransXNet of a classifier, detector or segmentor, or itself.

    Raises:
        UserError: The model has no TransXNet as its backbone.
    """
    backbone = getattr(model, 'backbone', model)
    if not isinstance(backbone, TransXNet):
        raise UserError(
            f'the backbone is {type(backbone).__name__}; this analysis is '
            'made for TransXNet'
        )
    return backbone


def run_stages(model: nn.Module) -> list[int]:
    """The stages of a model's TransXNet that are run, from 0."""
    return list(range(backbone_of(model).out_indices[-1] + 1))


def check_stage(model: nn.Module, stage: int) -> None:
    """Raise an error unless a model runs a stage.

    Args:
        model: A model with a TransXNet.
        stage: Index of the stage, from 0.

    Raises:
        UserError: It does not.
    """
    stages = run_stages(model)
    if stage not in stages:
        raise UserError(
            f'stage {stage + 1}: the model runs the stages '
            f'{", ".join(str(s + 1) for s in stages)}'
        )


def device_of(model: nn.Module) -> torch.device:
    """Where a model is."""
    return next(model.parameters()).device


def normalised(model: Any, picture: np.ndarray) -> Tensor:
    """Prepare a picture as a model's data preprocessor does.

    Args:
        model: A model with a ``data_preprocessor``.
        picture: Blue, green, red ``(H, W, 3)``, uint8.

    Returns:
        Image ``(1, 3, H, W)``, on the model's device; padded if the model
        needs it.
    """
    return model.data_preprocessor({'inputs': tensors([picture])})['inputs']


def tensors(pictures: Sequence[np.ndarray]) -> list[Tensor]:
    """Pictures ``(H, W, 3)`` as tensors ``(3, H, W)``."""
    return [
        torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
        for picture in pictures
    ]
