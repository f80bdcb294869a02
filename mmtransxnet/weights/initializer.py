"""Pretrained weights as mmengine initialises with them, all or an error."""

from collections.abc import Sequence

from mmengine.registry import WEIGHT_INITIALIZERS
from torch import nn

from mmtransxnet.weights.loading import load_weights


@WEIGHT_INITIALIZERS.register_module()
class TransXNetPretrained:
    """What ``init_cfg=dict(type='Pretrained')`` means for a TransXNet.

    mmengine's own goes on with whatever does not fit.

    Args:
        checkpoint: See :func:`load_weights`, as the other arguments.
        prefix: Take only the names that begin so.
        allow: Names that need not fit.
        map_location: mmengine's; weights are read on the CPU.
    """

    def __init__(
        self,
        checkpoint: str,
        prefix: str | None = None,
        allow: Sequence[str] = (),
        map_location: str | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.prefix = prefix
        self.allow = allow

    def __call__(self, module: nn.Module) -> None:
        """Fill the weights of a module."""
        load_weights(module, self.checkpoint, self.prefix, self.allow)
