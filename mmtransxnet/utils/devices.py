"""Devices that users name."""

import torch

from mmtransxnet.utils.errors import UserError


def check_device(name: str | None) -> None:
    """Check that a device is available.

    Args:
        name: As for ``--device``: ``cpu``, ``cuda:0``, ...

    Raises:
        UserError: It is not.
    """
    try:
        torch.empty(0, device=name)
    # Without CUDA, torch raises AssertionError.
    except (AssertionError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f'--device {name}: {reason}') from error
