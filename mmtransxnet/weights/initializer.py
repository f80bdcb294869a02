"""Strict initialisation with pretrained weights in mmengine."""

from collections.abc import Sequence

from mmengine.registry import WEIGHT_INITIALIZERS
from torch import nn

from mmtransxnet.weights.loading import load_weights


@WEIGHT_INITIALIZERS.register_module()
class TransXNetPretrained:
    """``init_cfg=dict(type='Pretrained')`` of a TransXNet.

    mmengine's own initialiser ignores weights that do not match.

    Args:
        checkpoint: See :func:`load_weights`, as the other arguments.
        prefix: Use only names with this prefix.
        allow: Names that need not match.
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
        """Load the weights into a module."""
        load_weights(module, self.checkpoint, self.prefix, self.allow)
