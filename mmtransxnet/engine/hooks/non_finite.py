"""A loss or a gradient that is no number must not reach the weights.

After a step with a NaN in it every weight is NaN, the run goes on for hours,
and nobody knows which batch it was.
"""

import functools
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import AmpOptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from mmtransxnet.engine.runner.on_device import (
    Snapshot,
    are_not_finite,
    can_skip,
    is_scaled,
    step_unless,
)
from mmtransxnet.engine.runner.plain import to_plain
from mmtransxnet.engine.runner.step_flags import Known, flags_of
from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.random_streams import random_states
from mmtransxnet.utils.text import first_few

FORMAT = 'mmtransxnet bad numbers 1'
"""What the files say of themselves."""

_POLICIES = ('error', 'skip')


@dataclass
class Iteration:
    """What an iteration started from, and its losses.

    Attributes:
        number: Its number from 1; 0 for none.
        batch: What the loader gave.
        states: States of all random numbers before it.
        losses: What the model returned.
    """

    number: int = 0
    batch: Any = None
    states: dict[str, Any] = field(default_factory=dict)
    losses: Any = None


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

    No host waits for a GPU in a step that is well. There, the GPU decides:
    it restores the buffers, and the optimizer leaves all as it is if it is
    one that can (``fused=True``); others get gradients of zero, so that
    weight decay and momentum go on. The host learns of it in the next
    iteration, and then stops or counts.

    Under float16's loss scaling, gradients are the scaler's, which skips
    steps with infinite ones and lowers the scale; they are looked at when it
    has come down to 1. A loss that is not finite is no matter of scale.

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

    def before_train(self, runner: Runner) -> None:
        """Come between the backward pass and the step."""
        if isinstance(runner.optim_wrapper, OptimWrapperDict):
            print_log(
                'BadNumbersHook does not look at the steps of several '
                'optimizers',
                'current',
                logging.WARNING,
            )
        model = runner.model
        self._flags = flags_of(runner)
        self._inner = model.module if is_model_wrapper(model) else model
        self._handle = self._inner.register_forward_hook(self._keep_losses)
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._buffers = Snapshot(list(model.buffers()))
        self._now = Iteration()
        # Whether a batch of the step that is being accumulated is bad.
        self._bad: Tensor | None = None
        wrapper: Any = runner.optim_wrapper
        self._backward, self._step = wrapper.backward, wrapper.step
        wrapper.backward = torch.compiler.disable(
            functools.partial(self._checked_backward, runner)
        )
        # Schedulers look for marks of theirs on the step.
        step = functools.partial(self._checked_step, runner)
        functools.update_wrapper(step, wrapper.step)
        wrapper.step = torch.compiler.disable(step)

    def after_train(self, runner: Runner) -> None:
        """Look at the last step, and leave the optimizer wrapper alone."""
        self.settle(runner)
        self._handle.remove()
        wrapper: Any = runner.optim_wrapper
        wrapper.backward, wrapper.step = self._backward, self._step

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Keep what the iteration starts from."""
        self._now = Iteration(runner.iter + 1, data_batch, random_states())
        self._buffers.take()

    def after_train_iter(self, runner: Runner, *args: Any, **kw: Any) -> None:
        """Let go of the batch; who has to hear of it still has it."""
        self._now = Iteration()

    def before_val_epoch(self, runner: Runner) -> None:
        """Evaluate, and save the best, only what is known to be well."""
        self.settle(runner)

    def settle(self, runner: Runner) -> None:
        """Act on all that has been, before it is saved.

        Called by all processes.
        """
        self._flags.finish()
        self._act_on_news(runner)

    def _keep_losses(self, model: nn.Module, _: Any, output: Any) -> None:
        if model.training and isinstance(output, Mapping):
            self._now.losses = output

    def _checked_backward(
        self, runner: Runner, loss: Tensor, **kwargs: Any
    ) -> None:
        self._backward(loss, **kwargs)
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        suspect = are_not_finite(gradients, loss)
        if is_scaled(runner.optim_wrapper):
            suspect = suspect & (runner.optim_wrapper.loss_scaler._scale <= 1)
        bad = self._flags.exchange(runner.iter, loss, suspect, self._now)
        if self._flags.lag:
            self._buffers.restore_where(bad)
            self._bad = bad if self._bad is None else self._bad.maximum(bad)
        self._act_on_news(runner)

    def _checked_step(self, runner: Runner, **kwargs: Any) -> None:
        if self._skip:
            self._skip = False
        elif self._bad is None:
            self._step(**kwargs)
        else:
            with step_unless(
                self._bad, runner.optim_wrapper, self._parameters
            ):
                self._step(**kwargs)
        self._bad = None

    def _act_on_news(self, runner: Runner) -> None:
        for known in self._flags.news():
            if known.bad:
                self._act(runner, known)

    @torch.no_grad()
    def _act(self, runner: Runner, known: Known) -> None:
        """Stop, or see to it that the step has not been."""
        told_late = bool(self._flags.lag)
        names = [] if told_late else _bad_gradients(runner.model)
        stop = self.policy == 'error' or self.skipped >= self.limit
        if stop or not told_late:
            self._buffers.restore()
        blamed = not math.isfinite(known.loss) or not known.bad_loss
        told = f'iteration {known.of.number}: '
        told += self._describe(known, names, blamed)
        if stop or not self.skipped:
            if blamed:
                # The device has put them back; a batch may have come since.
                with self._buffers.restored():
                    told += self._save(runner, known, names)
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
        if not told_late:
            self._skip = True
            # What is accumulated after it would be counted again.
            runner.optim_wrapper.zero_grad()

    def _describe(self, known: Known, names: list[str], blamed: bool) -> str:
        """What is bad, in a line."""
        told = f'the loss is {known.loss}'
        if math.isfinite(known.loss) and blamed and not names:
            told += ', gradients are not finite'
        parts = self._loss_values(known.of)
        if len(parts) > 1:
            values = ', '.join(f'{k}={v:.4g}' for k, v in parts.items())
            told += f' ({values})'
        if names:
            told += (
                f', {len(names)} gradients are not finite: {first_few(names)}'
            )
        if not blamed:
            told += '; the bad loss is that of another process'
        return told

    def _loss_values(self, iteration: Iteration) -> dict[str, float]:
        """Losses of the iteration by name, the parts of the whole."""
        if iteration.losses is None:
            return {}
        values = self._inner.parse_losses(iteration.losses)[1]
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

    def _save(self, runner: Runner, known: Known, names: list[str]) -> str:
        """Write the iteration to a file; returns what to tell of it."""
        rank = dist.get_rank() if dist.is_initialized() else 0
        iteration = known.of
        file = f'bad_numbers_iter_{iteration.number}_rank{rank}.pth'
        path = Path(runner.work_dir, file)
        left_out: list[str] = []
        content = dict(
            format=FORMAT,
            iteration=iteration.number,
            rank=rank,
            loss=known.loss,
            losses=self._loss_values(iteration),
            parameters=names,
            batch=to_plain(iteration.batch, left_out, 'batch'),
            config=to_plain(runner.cfg.to_dict(), left_out, 'config'),
            # Not gathered from its shards: others may not be here to help.
            weights=to_plain(self._inner.state_dict(), left_out)
            if not hasattr(runner, 'strategy')
            else None,
            states=to_plain(iteration.states, left_out),
            precision=_precision_of(runner.optim_wrapper),
            left_out=left_out,
        )
        try:
            torch.save(content, path)
        # torch's writer turns what the file system says into RuntimeError.
        except (OSError, RuntimeError) as error:
            return f'; the batch could not be saved: {error}'
        lost = f' without {first_few(left_out)}' if left_out else ''
        moved = self._flags.lag and not can_skip(
            runner.optim_wrapper.optimizer
        )
        which = 'after a step with gradients of zero' if moved else 'before it'
        return f'; the batch and the weights {which} are in {path}{lost}'


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
