"""int8 by NNCF's post-training quantisation."""

from collections.abc import Sequence
from typing import Any

from mmtransxnet.deploy.formats import Arrays


def quantise(model: Any, calibration: Sequence[Arrays]) -> Any:
    """Quantise a model of OpenVINO.

    Args:
        model: The model, float32.
        calibration: Inputs of the graph by name, with pictures like those of
            the training.

    Returns:
        The model with quantised convolutions and products.
    """
    import nncf

    data = nncf.Dataset(calibration, dict)
    return nncf.quantize(model, data, subset_size=len(calibration))
