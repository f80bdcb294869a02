"""Activation checkpointing that leaves batch norm statistics alone."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmtransxnet.models.batch_norm import no_statistics_update

# Values in a map. Recomputation costs 4 % of the time of a step with such
# maps, 15 % with the maps of a few small images, where memory is no concern.
_LARGE = 5_000_000


def recompute(
    function: Callable[..., Tensor],
    *inputs: Tensor,
    module: nn.Module,
    random: bool = True,
) -> Tensor:
    """Call a function whose intermediate results are not kept for backward.

    The backward pass computes them again from the inputs.

    Args:
        function: What to call.
        inputs: Its arguments.
        module: Module whose batch norms the function uses; they count the
            batch once.
        random: Whether the function draws random numbers.
    """
    return checkpoint(
        function,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=random,
        context_fn=lambda: (nullcontext(), no_statistics_update(module)),
    )


def worthwhile(x: Tensor) -> bool:
    """Whether to recompute what is cheap between the convolutions.

    A compiler decides by itself what to keep. A single value per channel is
    normalised with other statistics, by a context that is over when the
    backward pass begins; its map is never large.
    """
    return (
        x.numel() > _LARGE
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )
