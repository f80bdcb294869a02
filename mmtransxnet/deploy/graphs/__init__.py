"""Models as graphs of tensors: what torch.export and the writers take.

A deploy form takes uint8 pictures and gives results of fixed names
(docs/export.md), with no data-dependent control flow. It is derived from a
trained model and computes what the model's ``predict`` computes.

To add an algorithm, write a module with a function
``build(model, batch, size) -> DeployForm`` and add a row to ``ALGORITHMS``.
"""

import importlib
from typing import Any

import torch

from mmtransxnet.deploy.graphs.base import DeployForm, Size
from mmtransxnet.utils.errors import UserError

__all__ = ['ALGORITHMS', 'DeployForm', 'algorithm_of', 'deploy_form']

# Class of the model -> module here with its ``build``. The libraries of other
# tasks are not imported.
ALGORITHMS = {
    'CascadeRCNN': 'detectors',
    'FasterRCNN': 'detectors',
    'ImageClassifier': 'classifier',
    'EncoderDecoder': 'segmentor',
    'MaskRCNN': 'detectors',
    'RetinaNet': 'detectors',
}


def algorithm_of(model: Any) -> str:
    """Name in ``ALGORITHMS`` of a model.

    Raises:
        UserError: The algorithm has no deploy form.
    """
    # Exactly this class: a subclass may compute something else.
    name = type(model).__name__
    if name not in ALGORITHMS:
        raise UserError(
            f'a {name} cannot be exported: expected one of '
            f'{", ".join(sorted(ALGORITHMS))}; docs/export.md says how an '
            'algorithm is added'
        )
    return name


@torch.no_grad()
def deploy_form(
    model: Any, batch: int | None = None, size: Size | None = None
) -> DeployForm:
    """Derive the deploy form of a trained model.

    Args:
        model: Classifier, detector or segmentor in evaluation mode, with a
            TransXNet; folded or not. It is not changed.
        batch: Number of images of the graph; None for any.
        size: Height and width of the graph in pixels; None for any size from
            32.

    Returns:
        The deploy form, in evaluation mode on the CPU.

    Raises:
        UserError: The model has no deploy form.
    """
    name = ALGORITHMS[algorithm_of(model)]
    module = importlib.import_module(f'{__name__}.{name}')
    return module.build(model, batch, size).cpu().eval()
