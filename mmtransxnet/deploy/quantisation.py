"""int8 by NNCF's post-training quantisation."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mmtransxnet.deploy.formats import Arrays
from mmtransxnet.utils.errors import UserError

# Metrics of the libraries that are shares of 1; all others are in percent.
_SHARES = ('bbox_mAP', 'segm_mAP')

_MAIN = ('accuracy/top1', 'mIoU', 'bbox_mAP', 'segm_mAP')
"""Metrics that decide, by the end of their names."""


def quantise(model: Any, calibration: Sequence[Arrays]) -> Any:
    """Quantise a model of OpenVINO.

    Only convolutions with constant kernels are quantised. docs/export.md has
    what the others lose and gain.

    Args:
        model: The model, float32.
        calibration: Inputs of the graph by name, with pictures like those of
            the training.

    Returns:
        The model with quantised convolutions.
    """
    import nncf

    # It lists every operator that it leaves as it is.
    nncf.set_log_level(logging.ERROR)
    data = nncf.Dataset(calibration, dict)
    return nncf.quantize(
        model,
        data,
        subset_size=len(calibration),
        ignored_scope=nncf.IgnoredScope(
            names=_kept_precise(model), validate=False
        ),
    )


_CONVOLUTIONS = ('Convolution', 'GroupConvolution')
_NOT_COMPUTED = ('Constant', 'Parameter', 'Result')


def _kept_precise(model: Any) -> list[str]:
    """Names of the operators that are not quantised.

    NNCF would quantise the maps that others read as well: sums and
    concatenations, which made models slower, and reshaped ones of changing
    sizes, with which OpenVINO's CPU plugin fails.
    """
    return [
        op.get_friendly_name()
        for op in model.get_ops()
        if op.get_type_name() not in (*_CONVOLUTIONS, *_NOT_COMPUTED)
        or _has_computed_kernel(op)
    ]


def _has_computed_kernel(op: Any) -> bool:
    """Whether this is a convolution as IDConv's with a constant batch."""
    if op.get_type_name() not in _CONVOLUTIONS:
        return False
    return not _is_constant(op.input_value(1).get_node())


def _is_constant(op: Any) -> bool:
    if op.get_type_name() == 'Constant':
        return True
    values = op.input_values()
    return bool(values) and all(_is_constant(v.get_node()) for v in values)


def check_loss(
    expected: Mapping[str, float],
    got: Mapping[str, float],
    limit: float | None,
) -> list[str]:
    """Compare the metrics of int8 with those of PyTorch.

    Args:
        expected: Metrics of the model in PyTorch.
        got: Metrics of the exported model.
        limit: Largest loss in points; None for any.

    Returns:
        A line for each metric that decides.

    Raises:
        UserError: The loss is larger, or no metric is known.
    """
    losses = {
        name: (100 if name.endswith(_SHARES) else 1)
        * (expected[name] - got[name])
        for name in expected
        if name.endswith(_MAIN) and name in got
    }
    if not losses:
        raise UserError(
            'the loss of int8 cannot be judged: the config has none of the '
            f'metrics {", ".join(_MAIN)}'
        )
    worst = max(losses, key=lambda name: losses[name])
    # NaN is never below a limit.
    if limit is not None and not losses[worst] <= limit:
        raise UserError(
            f'int8 loses {losses[worst]:.2f} points of {worst}, more than '
            f'{limit:g}: calibrate with other pictures (--calibrate), or '
            'allow it (--allow-loss). Nothing was written'
        )
    return [
        f'int8 loses {loss:.2f} points of {name}'
        for name, loss in losses.items()
    ]
