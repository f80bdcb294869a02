"""A loss or a gradient that is no number must not reach the weights.

After a step with a NaN in it every weight is NaN, the run goes on for hours,
and nobody knows which batch it was.
"""

import functools
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from mmtransxnet.checkpoint import named
from mmtransxnet.engine.errors import UserError
from mmtransxnet.engine.plain import to_plain
from mmtransxnet.engine.rng import random_states

FORMAT = 'mmtransxnet bad numbers 1'
"""What the files say of themselves."""

_POLICIES = ('error', 'skip')


@HOOKS.register_module()
class BadNumbersHook(Hook):
    """Look at loss and gradients between the backward pass and the step.

    Where one is NaN or infinite, in any of the processes, all of them stop
    or skip the step. The batch, the weights and buffers from before the
    iteration and the random states go to
    ``bad_numbers_iter_{iteration}_rank{rank}.pth`` in the work directory, by
    every process whose loss is bad, or by all if only gradients are;
    ``tools/replay.py`` computes the iteration again.

    A skipped step leaves weights, optimizer state and buffers (the running
    statistics of batch norms) as before. With ``accumulative_counts`` the
    whole step is skipped, that is, the good batches of it are lost too.

    Infinite gradients under float16's loss scaling are not looked at while
    the scale is above 1: the scaler skips these steps and lowers the scale.

    Args:
        policy: ``'error'`` stops the run, ``'skip'`` skips the step.
        limit: Steps that may be skipped since the start of the process; the
            next one stops the run. The first one is saved, and the last.

    Raises:
        ValueError: Another policy, or a limit that is no count.
    """

    # The random states are taken after all other hooks drew from them.
    priority = 'LOWEST'

    def __init__(self, policy: str = 'error', limit: int = 10) -> None:
        if policy not in _POLICIES:
            raise ValueError(f'policy={policy!r}: expected one of {_POLICIES}')
        if type(limit) is not int or limit < 0:
            raise ValueError(f'limit={limit!r}: expected a count')
        self.policy = policy
        self.limit = limit
        self.skipped = 0
        self._skip = False
        self._batch: Any = None
        self._losses: Any = None
        self._states: dict[str, Any] = {}

    def before_train(self, runner: Runner) -> None:
        """Come between the backward pass and the step."""
        model = runner.model
        self._inner = model.module if is_model_wrapper(model) else model
        self._handle = self._inner.register_forward_hook(self._keep_losses)
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._buffers = list(model.buffers())
        self._copies = [buffer.clone() for buffer in self._buffers]
        wrapper: Any = runner.optim_wrapper
        self._backward, self._step = wrapper.backward, wrapper.step
        wrapper.backward = torch.compiler.disable(
            functools.partial(self._checked_backward, runner)
        )
        # Schedulers look for marks of theirs on the step.
        step = functools.partial(self._checked_step)
        functools.update_wrapper(step, wrapper.step)
        wrapper.step = torch.compiler.disable(step)

    def after_train(self, runner: Runner) -> None:
        """Leave the optimizer wrapper as it was."""
        self._handle.remove()
        wrapper: Any = runner.optim_wrapper
        wrapper.backward, wrapper.step = self._backward, self._step

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Keep what the iteration starts from."""
        self._batch = data_batch
        self._states = random_states()
        if self._buffers:
            torch._foreach_copy_(self._copies, self._buffers)

    def after_train_iter(self, runner: Runner, *args: Any, **kw: Any) -> None:
        """Let go of the batch."""
        self._batch = self._losses = None

    def _keep_losses(self, model: nn.Module, _: Any, output: Any) -> None:
        if model.training and isinstance(output, Mapping):
            self._losses = output

    def _checked_backward(
        self, runner: Runner, loss: Tensor, **kwargs: Any
    ) -> None:
        self._backward(loss, **kwargs)
        bad_loss, suspect = _anywhere(_suspects(loss, self._parameters))
        if not (bad_loss or suspect):
            return
        if not bad_loss and _is_scaled(runner.optim_wrapper):
            return
        names = _bad_gradients(runner.model)
        if bad_loss or any(_anywhere(loss.new_tensor([bool(names)]))):
            value = loss.item()
            blamed = not math.isfinite(value) or not bad_loss
            self._act(runner, value, names, blamed)

    def _checked_step(self, **kwargs: Any) -> None:
        if not self._skip:
            self._step(**kwargs)
        self._skip = False

    @torch.no_grad()
    def _act(
        self, runner: Runner, loss: float, names: list[str], blamed: bool
    ) -> None:
        """Stop, or see to it that the step has not been."""
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._copies)
        stop = self.policy == 'error' or self.skipped >= self.limit
        told = f'iteration {runner.iter + 1}: '
        told += self._describe(loss, names, blamed)
        if stop or not self.skipped:
            if blamed:
                told += self._save(runner, loss, names)
            if dist.is_initialized():
                # Who is first to exit must not end those that still write.
                dist.barrier()
        if stop:
            raise UserError(f'{told}. {self._remedy()}')
        self.skipped += 1
        print_log(
            f'{told}; the step is skipped, number {self.skipped} of at most '
            f'{self.limit}',
            'current',
            logging.WARNING,
        )
        self._skip = True
        # What is accumulated after it would be counted again.
        runner.optim_wrapper.zero_grad()

    def _describe(self, loss: float, names: list[str], blamed: bool) -> str:
        """What is bad, in a line."""
        told = f'the loss is {loss}'
        parts = self._loss_values()
        if len(parts) > 1:
            values = ', '.join(f'{k}={v:.4g}' for k, v in parts.items())
            told += f' ({values})'
        if names:
            told += f', {len(names)} gradients are not finite: {named(names)}'
        if not blamed:
            told += '; the bad loss is that of another process'
        return told

    def _loss_values(self) -> dict[str, float]:
        """Losses of the iteration by name, the parts of the whole."""
        if self._losses is None:
            return {}
        values = self._inner.parse_losses(self._losses)[1]
        return {name: value.item() for name, value in values.items()}

    def _remedy(self) -> str:
        if self.policy == 'skip':
            return (
                f'{self.skipped} steps were skipped before, the limit '
                '(default_hooks.bad_numbers.limit); lower the learning rate '
                'or clip gradients'
            )
        return (
            'See tools/replay.py; go on without such steps by --cfg-options '
            'default_hooks.bad_numbers.policy=skip'
        )

    def _save(self, runner: Runner, loss: float, names: list[str]) -> str:
        """Write the iteration to a file; returns what to tell of it."""
        rank = dist.get_rank() if dist.is_initialized() else 0
        file = f'bad_numbers_iter_{runner.iter + 1}_rank{rank}.pth'
        path = Path(runner.work_dir, file)
        left_out: list[str] = []
        content = dict(
            format=FORMAT,
            iteration=runner.iter + 1,
            rank=rank,
            loss=loss,
            losses=self._loss_values(),
            parameters=names,
            batch=to_plain(self._batch, left_out, 'batch'),
            config=to_plain(runner.cfg.to_dict(), left_out, 'config'),
            # Not gathered from its shards: others may not be here to help.
            weights=to_plain(self._inner.state_dict(), left_out)
            if not hasattr(runner, 'strategy')
            else None,
            states=to_plain(self._states, left_out),
            precision=_precision_of(runner.optim_wrapper),
            left_out=left_out,
        )
        try:
            torch.save(content, path)
        # torch's writer turns what the file system says into RuntimeError.
        except (OSError, RuntimeError) as error:
            return f'; the batch could not be saved: {error}'
        lost = f' without {named(left_out)}' if left_out else ''
        return f'; the batch and the weights before it are in {path}{lost}'


def _suspects(loss: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    """Whether the loss is, and whether a gradient may be, not finite.

    The norm of all gradients is ten times faster than looking at each
    number, but its squares overflow where the numbers do not yet.

    Returns:
        Two numbers, 1 for yes, on the device of the loss.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    both = torch.stack([loss.detach().float(), norm.to(loss).float()])
    return (~both.isfinite()).float()


def _anywhere(flags: Tensor) -> list[bool]:
    """Whether flags are set in any of the processes."""
    if dist.is_initialized():
        dist.all_reduce(flags, dist.ReduceOp.MAX)
    return [bool(flag) for flag in flags.tolist()]


def _is_scaled(wrapper: Any) -> bool:
    """Whether infinite gradients may come from loss scaling alone."""
    scaler = getattr(wrapper, 'loss_scaler', None)
    return (
        scaler is not None and scaler.is_enabled() and scaler.get_scale() > 1
    )


def _bad_gradients(model: nn.Module) -> list[str]:
    """Names of the parameters whose gradient is not finite."""
    return [
        name.removeprefix('module.')
        for name, p in model.named_parameters()
        if p.grad is not None and not p.grad.isfinite().all()
    ]


def _precision_of(wrapper: Any) -> dict[str, Any]:
    """How the forward pass was computed."""
    if not isinstance(wrapper, AmpOptimWrapper):
        return dict(autocast=False)
    dtype = wrapper.cast_dtype
    return dict(
        autocast=True,
        dtype=dtype and str(dtype).removeprefix('torch.'),
        loss_scale=float(wrapper.loss_scaler.get_scale()),
    )
