"""Activation checkpointing that is safe for batch norms and DDP."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from mmtransxnet.kernels.act_norm_conv import (
    act_norm_conv,
    computes,
    is_plain,
    norm_and_scale,
    uses_batch,
)
from mmtransxnet.kernels.batch_norm import (
    no_statistics_update,
    synchronised_norms,
    training_norms,
)
from mmtransxnet.kernels.depthwise import must_be_called
from mmtransxnet.kernels.formula import has_kernel, in_place_of
from mmtransxnet.kernels.layer_scale import scale_and_shift
from mmtransxnet.kernels.settings import PLAIN, settings_of

MODES = ('off', 'on', 'auto')

# Before 2.9, compiled steps update the statistics of recomputed norms twice.
_COUNTS_TWICE = torch.__version__ < '2.9'


def recompute(
    function: Callable[..., Tensor],
    *inputs: Tensor,
    module: nn.Module,
    random: bool = True,
) -> Tensor:
    """Call a function without keeping its intermediate results.

    The backward pass recomputes them from the inputs, except for norms that
    synchronise with other processes: their outputs are kept.

    Args:
        function: The function.
        inputs: Arguments of the function.
        module: Module whose batch norms the function uses; their statistics
            are updated once.
        random: Whether the function draws random numbers.
    """
    kept = _KeptNorms(synchronised_norms(module))
    return checkpoint(
        function,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=random,
        context_fn=lambda: (
            _Reentrant(kept.keep),
            _Reentrant(
                kept.replay_outputs, lambda: no_statistics_update(module)
            ),
        ),
    )


def checkpointed(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorate a ``forward`` that is recomputed if ``with_cp`` is set.

    TorchScript, which compiles source code, sees only the method.
    """
    run = _run_checkpointed

    def call(self: Any, *inputs: Tensor) -> Tensor:
        return run(forward, self, *inputs)

    return in_place_of(forward, call)


def _run_checkpointed(
    forward: Callable[..., Tensor], module: Any, *inputs: Tensor
) -> Tensor:
    if not (module.with_cp and torch.is_grad_enabled()):
        return forward(module, *inputs)
    compute = partial(forward, module)
    if not torch.compiler.is_compiling():
        return recompute(compute, *inputs, module=module)
    # A compiler recomputes values, not side effects, and ignores contexts. But
    # a single sample is normalised with running statistics, which have moved
    # on when the backward pass reads them; and norms that synchronise with
    # other processes must not run twice.
    if (
        inputs[0].size(0) == 1
        or synchronised_norms(module)
        or (_COUNTS_TWICE and training_norms(module))
    ):
        return compute(*inputs)
    return checkpoint(compute, *inputs, use_reentrant=False)


def enhance_keeping_less(mixer: Any, x: Tensor) -> Any:
    """``x + proj(x)`` with one map of C channels kept instead of three.

    Args:
        mixer: A :class:`~mmtransxnet.models.token_mixer.DMixer`.
        x: Feature map ``(B, C, H, W)``.
    """
    proj = mixer.proj
    if not is_recomputed(x, x.numel(), mixer.recompute, proj, proj):
        return NotImplemented
    conv, act, norm, squeeze, *others = proj
    out = _act_norm_conv(conv(x), act, norm, squeeze)
    for layer in others:
        out = layer(out)
    return x + out


def ffn_keeping_less(ffn: Any, x: Tensor) -> Any:
    """MS-FFN with two maps of hidden channels kept instead of six.

    Args:
        ffn: A :class:`~mmtransxnet.models.ms_ffn.MSFFN`.
        x: Feature map ``(B, C, H, W)``.
    """
    if not _ffn_is_recomputed(ffn, x):
        return NotImplemented
    out = _after_expansion(ffn, ffn.fc1[0](x))
    return ffn.drop(ffn.fc2[1](out))


def scaled_ffn_keeping_less(block: Any, x: Tensor) -> Any:
    """``layer_scale_2(mlp(norm2(x)))`` with one map of C channels kept.

    Without the kernel, four are kept: before and after each norm. The
    expansion's input is computed again; LayerScale becomes part of the last
    norm, whose weight and bias it scales.

    Args:
        block: A :class:`~mmtransxnet.models.block.Block`.
        x: Feature map ``(B, C, H, W)``.
    """
    ffn, scale = block.mlp, block.layer_scale_2
    if (
        not has_kernel(ffn, ffn_keeping_less)
        or not has_kernel(scale, scale_and_shift)
        or not _ffn_is_recomputed(ffn, x)
        or not is_plain(ffn.fc1[0])
        or synchronised_norms(block.norm2)
        or not uses_batch(ffn.fc2[1], x)
        or ffn.drop.p > 0
        or any(
            map(
                must_be_called, (ffn, scale, block.norm2, ffn.fc1[0], ffn.drop)
            )
        )
    ):
        return NotImplemented
    out = recompute(
        lambda y: ffn.fc1[0](block.norm2(y)),
        x,
        module=block.norm2,
        random=False,
    )
    return norm_and_scale(_after_expansion(ffn, out), ffn.fc2[1], scale)


def _ffn_is_recomputed(ffn: Any, x: Tensor) -> bool:
    hidden = x.size(0) * sum(ffn.dwconv.splits) * x.size(2) * x.size(3)
    return is_recomputed(x, hidden, ffn.recompute, ffn, ffn.fc1, ffn.fc2) and (
        len(ffn.fc1),
        len(ffn.fc2),
    ) == (3, 2)


def _after_expansion(ffn: Any, x: Tensor) -> Tensor:
    """MS-FFN between its first convolution and its last norm."""
    _, act, norm = ffn.fc1
    x = _act_norm_conv(x, act, norm, ffn.dwconv)
    return _act_norm_conv(x, ffn.act, ffn.norm, ffn.fc2[0], ffn.drop)


def _act_norm_conv(
    x: Tensor,
    act: nn.Module,
    norm: nn.Module,
    conv: nn.Module,
    drop: nn.Dropout | None = None,
) -> Tensor:
    """``conv(drop(norm(act(x))))`` with only x kept."""
    drops = drop is not None and not _does_nothing(drop)
    if not drops and computes(x, act, norm, conv):
        return act_norm_conv(x, act, norm, conv)
    parts = nn.ModuleList((act, norm, conv))

    def compute(y: Tensor) -> Tensor:
        y = norm(act(y))
        return conv(y if drop is None else drop(y))

    random = drops or not is_plain(conv)
    return recompute(compute, x, module=parts, random=random)


def _does_nothing(drop: nn.Module) -> bool:
    """Whether a dropout need not be called."""
    return (
        type(drop) is nn.Dropout and drop.p == 0 and not must_be_called(drop)
    )


def is_recomputed(
    x: Tensor, size: int, mode: str, module: nn.Module, *parts: nn.Module
) -> bool:
    """Whether to recompute the cheap operations between the convolutions.

    A compiler decides by itself what to keep. Norms that synchronise with
    other processes would have to be kept, which leaves nothing to gain; all
    processes have the same norms, so they decide alike. A single value per
    channel is normalised with running statistics, which may have changed when
    the backward pass begins.

    Args:
        x: The input ``(B, C, H, W)``.
        size: Number of values of the maps that would not be kept.
        mode: ``'off'``, ``'on'`` or ``'auto'``: where the device's settings
            recommend it for maps of this size.
        module: What would be recomputed.
        parts: Its submodules that would not be called as modules; hooks on
            them, or replacements of them, prevent it.
    """
    settings = settings_of(x)
    if (
        mode == 'off'
        or settings is PLAIN
        or not torch.is_grad_enabled()
        or torch.compiler.is_compiling()
    ):
        return False
    limit = settings.recompute_above
    large = limit is not None and size > limit
    if not (large or mode == 'on') or x.numel() == x.size(1):
        return False
    return not (any(map(_must_be_called, parts)) or synchronised_norms(module))


def _must_be_called(part: nn.Module) -> bool:
    """Whether a sequence of modules must be called as a module."""
    return type(part) is not nn.Sequential or must_be_called(part)


class _Reentrant:
    """Contexts that can be entered repeatedly, once per backward pass.

    Args:
        contexts: Functions that return a new context each.
    """

    def __init__(self, *contexts: Callable[[], Any]) -> None:
        self._contexts = contexts
        self._entered: list[ExitStack] = []

    def __enter__(self) -> None:
        with ExitStack() as stack:
            for context in self._contexts:
                stack.enter_context(context())
            self._entered.append(stack.pop_all())

    def __exit__(self, *error: Any) -> None:
        self._entered.pop().__exit__(*error)


class _KeptNorms:
    """Norms whose outputs are kept for the recomputation.

    Args:
        norms: Norms inside the recomputed function.
    """

    def __init__(self, norms: list[nn.Module]) -> None:
        self._norms = norms
        self._outputs: list[tuple[Tensor, bool]] = []

    @contextmanager
    def keep(self) -> Iterator[None]:
        """Run the norms, keeping their outputs and saved tensors."""
        with self._calling(self._run):
            yield

    @contextmanager
    def replay_outputs(self) -> Iterator[None]:
        """Return the kept outputs instead, in the same order."""
        outputs = iter(self._outputs)

        def replay(forward: Any, *inputs: Any, **kwargs: Any) -> Tensor:
            output, needs_gradient = next(outputs)
            # A copy and not a leaf, because later operations may work in
            # place.
            return output.detach().requires_grad_(needs_gradient).clone()

        with self._calling(replay):
            yield

    def _run(self, forward: Any, *inputs: Any, **kwargs: Any) -> Tensor:
        # Not packed by the checkpoint, which would expect them again.
        with saved_tensors_hooks(lambda t: t, lambda t: t):
            output = forward(*inputs, **kwargs)
        self._outputs.append((output.detach().clone(), output.requires_grad))
        return output

    @contextmanager
    def _calling(self, function: Callable[..., Tensor]) -> Iterator[None]:
        """Replace the norms' ``forward`` by a function that gets it."""
        before = [vars(norm).get('forward') for norm in self._norms]
        for norm in self._norms:
            norm.forward = partial(function, norm.forward)
        try:
            yield
        finally:
            for norm, forward in zip(self._norms, before, strict=True):
                if forward is None:
                    del norm.forward
                else:
                    norm.forward = forward
