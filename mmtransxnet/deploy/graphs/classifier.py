"""Deploy form of mmpretrain's classifier."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mmtransxnet.deploy.graphs.backbone import DeployBackbone
from mmtransxnet.deploy.graphs.base import (
    DeployForm,
    Normalise,
    Size,
    preprocessed,
)


class Classifier(DeployForm):
    """An ``ImageClassifier``: pictures to scores of the classes.

    Args:
        model: The trained model.
        batch: Number of images; None for any.
        size: Height and width; None for any.
    """

    task = 'classification'
    output_names = ('scores',)

    def __init__(
        self, model: Any, batch: int | None, size: Size | None
    ) -> None:
        super().__init__(batch, size)
        self.normalise = Normalise(model.data_preprocessor)
        self.backbone = DeployBackbone(model.backbone, batch)
        self.neck = copy.deepcopy(model.neck)
        self.head = copy.deepcopy(model.head)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Probabilities ``(B, classes)`` of ``(B, H, W, 3)``, uint8."""
        features = self.backbone(self.normalise(images))
        if self.neck is not None:
            features = self.neck(features)
        return (self.head(features).softmax(dim=1),)

    def reference(self, model: Any) -> Callable[..., tuple[Tensor, ...]]:
        """The scores of the model's own ``predict``."""

        def predict(images: Tensor) -> tuple[Tensor]:
            samples = model.predict(preprocessed(model, images))
            return (torch.stack([s.pred_score for s in samples]),)

        return predict


def build(model: Any, batch: int | None, size: Size | None) -> Classifier:
    """See :func:`mmtransxnet.deploy.graphs.deploy_form`."""
    return Classifier(model, batch, size)
