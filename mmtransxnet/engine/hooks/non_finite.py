"""Detection of losses and gradients that are not finite.

After a step with a NaN, all weights are NaN, the run continues for hours, and
the batch that caused it is unknown.
"""

import functools
import io
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import barrier, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.runner.checkpoint import weights_to_cpu
from torch import Tensor, nn

from mmtransxnet.engine.hooks.inference_form import inner_model
from mmtransxnet.engine.runner.on_device import (
    Snapshot,
    are_not_finite,
    can_skip,
    is_scaled,
    step_unless,
)
from mmtransxnet.engine.runner.step_flags import Outcome, flags_of
from mmtransxnet.utils.atomic_write import write_safely
from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.text import first_few

FORMAT = 'mmtransxnet non-finite iteration 1'
"""Entry that identifies the files."""

_POLICIES = ('error', 'skip')


@dataclass
class Iteration:
    """The current iteration.

    Attributes:
        number: Its number from 1; 0 before the first.
        losses: What the model returned.
    """

    number: int = 0
    losses: Any = None


@HOOKS.register_module(name=['NonFiniteHook', 'BadNumbersHook'])
class NonFiniteHook(Hook):
    """Check loss and gradients between the backward pass and the step.

    If one is NaN or infinite in any process, all processes stop or skip the
    step. The weights and buffers from before the iteration are saved to
    ``non_finite_iter_{iteration}_rank{rank}.pth`` in the work directory, by
    every process whose loss is not finite, or by all if only gradients are
    not; ``tools/replay.py`` recomputes the iteration.

    A skipped step does not change weights, optimizer state and buffers (the
    running statistics of batch norms). With ``accumulative_counts`` the entire
    step is skipped, including its finite batches.

    In a finite step, the host never waits for a GPU. There, the GPU decides:
    it restores the buffers, and optimizers that support it (``fused=True``)
    skip the step; others get gradients of zero, so weight decay and momentum
    are still applied. The host is notified in the next iteration, and then
    stops or counts.

    With float16's loss scaling, gradients are left to the scaler, which skips
    steps with infinite ones and lowers the scale; they are checked once it has
    come down to 1. A loss that is not finite does not depend on the scale.

    Args:
        policy: ``'error'`` stops the run, ``'skip'`` skips the step.
        limit: Steps that may be skipped since the start of the process; the
            next one stops the run. The first and the last are saved.

    Raises:
        ValueError: The policy is unknown, or the limit is not a count.
    """

    # Low priority: buffers are copied after all other hooks have changed them.
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
        """Wrap the optimizer wrapper's backward pass and step."""
        if isinstance(runner.optim_wrapper, OptimWrapperDict):
            print_log(
                'NonFiniteHook does not check the steps of several optimizers',
                'current',
                logging.WARNING,
            )
        model = runner.model
        self._flags = flags_of(runner)
        self._inner = inner_model(runner)
        self._handle = self._inner.register_forward_hook(self._keep_losses)
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._buffers = Snapshot(list(model.buffers()))
        self._now = Iteration()
        # Whether a batch of the step being accumulated is not finite.
        self._bad: Tensor | None = None
        wrapper: Any = runner.optim_wrapper
        self._backward, self._step = wrapper.backward, wrapper.step
        wrapper.backward = torch.compiler.disable(
            functools.partial(self._checked_backward, runner)
        )
        # Schedulers look for attributes that they set on the step.
        step = functools.partial(self._checked_step, runner)
        functools.update_wrapper(step, wrapper.step)
        wrapper.step = torch.compiler.disable(step)

    def after_train(self, runner: Runner) -> None:
        """Check the last step and restore the optimizer wrapper."""
        self.settle(runner)
        self._handle.remove()
        wrapper: Any = runner.optim_wrapper
        wrapper.backward, wrapper.step = self._backward, self._step

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Save the state before the iteration."""
        self._now = Iteration(runner.iter + 1)
        self._buffers.take()

    def before_val_epoch(self, runner: Runner) -> None:
        """Evaluate and save only weights that are known to be finite."""
        self.settle(runner)

    def settle(self, runner: Runner) -> None:
        """Act on all steps so far, before something is saved.

        Called by all processes.
        """
        self._flags.finish()
        self._act_on_outcomes(runner)

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
        self._act_on_outcomes(runner)

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

    def _act_on_outcomes(self, runner: Runner) -> None:
        for outcome in self._flags.outcomes():
            if outcome.bad:
                self._act(runner, outcome)

    @torch.no_grad()
    def _act(self, runner: Runner, outcome: Outcome) -> None:
        """Stop the run, or make sure that the step is skipped."""
        late = bool(self._flags.lag)
        names = [] if late else _bad_gradients(runner.model)
        stop = self.policy == 'error' or self.skipped >= self.limit
        if stop or not late:
            self._buffers.restore()
        is_own = not math.isfinite(outcome.loss) or not outcome.bad_loss
        message = f'iteration {outcome.subject.number}: '
        message += self._describe(outcome, names, is_own)
        if stop or not self.skipped:
            if is_own:
                message += self._save(runner, outcome, names)
            # A process that exits first must not end those that still write.
            barrier()
        if stop:
            raise UserError(f'{message}. {self._remedy()}')
        self.skipped += 1
        print_log(
            f'{message}; the step is skipped, number {self.skipped} of at '
            f'most {self.limit}',
            'current',
            logging.WARNING,
        )
        if not late:
            self._skip = True
            # Reset, or batches accumulated later would be counted again.
            runner.optim_wrapper.zero_grad()

    def _describe(
        self, outcome: Outcome, names: list[str], is_own: bool
    ) -> str:
        """Describe what is not finite, in one line."""
        text = f'the loss is {outcome.loss}'
        parts = self._loss_values(outcome.subject)
        if len(parts) > 1:
            values = ', '.join(f'{k}={v:.4g}' for k, v in parts.items())
            text += f' ({values})'
        if names:
            text += f', {len(names)} gradients are not finite: '
            text += first_few(names)
        elif math.isfinite(outcome.loss) and is_own:
            text += ', gradients are not finite'
        if not is_own:
            text += '; the bad loss is that of another process'
        return text

    def _loss_values(self, iteration: Iteration) -> dict[str, float]:
        """Losses of the iteration by name."""
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
            'See tools/replay.py; to skip such steps: --cfg-options '
            'default_hooks.bad_numbers.policy=skip'
        )

    def _save(self, runner: Runner, outcome: Outcome, names: list[str]) -> str:
        """Write the file for a replay; return a note for the message."""
        if hasattr(runner, 'strategy'):
            # Not gathered: other processes may not take part.
            return '; sharded weights are not saved'
        iteration, rank = outcome.subject.number, get_rank()
        path = Path(
            runner.work_dir, f'non_finite_iter_{iteration}_rank{rank}.pth'
        )
        # The device has restored them; another batch may have run since.
        with self._buffers.restored():
            weights = weights_to_cpu(self._inner.state_dict())
            content = dict(
                format=FORMAT,
                iteration=iteration,
                rank=rank,
                processes=get_world_size(),
                seed=runner.seed,
                losses=self._loss_values(outcome.subject),
                gradients=names,
                weights=weights,
                precision=_precision_of(runner.optim_wrapper),
            )
            file = io.BytesIO()
            torch.save(content, file)
        try:
            write_safely(path, file.getvalue(), 'replay')
        except UserError as error:
            return f'; the weights could not be saved: {error}'
        moved = self._flags.lag and not can_skip(
            runner.optim_wrapper.optimizer
        )
        moment = (
            'after a step with gradients of zero' if moved else 'before it'
        )
        return f'; the weights {moment} are in {path}'


def _bad_gradients(model: nn.Module) -> list[str]:
    """Names of the parameters whose gradient is not finite."""
    return [
        name.removeprefix('module.')
        for name, p in model.named_parameters()
        if p.grad is not None and not p.grad.isfinite().all()
    ]


def _precision_of(wrapper: Any) -> dict[str, Any]:
    """Precision settings of the forward and backward pass."""
    amp = isinstance(wrapper, AmpOptimWrapper)
    return dict(
        autocast=amp,
        dtype=wrapper.cast_dtype if amp else None,
        loss_scale=float(wrapper.loss_scaler.get_scale()) if amp else 1.0,
    )
