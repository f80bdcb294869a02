"""Save and exit when the cluster preempts the run."""

import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from mmengine.dist import barrier
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmtransxnet.engine.hooks.checkpoint import SafeCheckpointHook
from mmtransxnet.engine.runner.step_flags import flags_of
from mmtransxnet.utils.errors import UserError

STATUS = 75
"""Exit status of an interrupted run: EX_TEMPFAIL of sysexits.h."""

# Windows has no SIGUSR1.
SIGNALS = tuple(
    getattr(signal, name)
    for name in ('SIGTERM', 'SIGUSR1')
    if hasattr(signal, name)
)


@HOOKS.register_module()
class PreemptionHook(Hook):
    """On SIGTERM or SIGUSR1, save after the current iteration and exit.

    The exit status is :data:`STATUS`; ``--resume`` continues exactly there. It
    is enough that one process gets the signal: all stop after the same
    iteration. With gradient accumulation they stop after the next optimizer
    step.
    """

    # After the schedulers, and after a regular checkpoint that may be due.
    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        """Install the signal handlers."""
        self._flags: Any = flags_of(runner)
        self._saving = _checkpoint_hook(runner)
        self._listener = os.getpid()
        self._before = {
            number: signal.signal(number, self._on_signal)
            for number in SIGNALS
        }

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping | None = None,
    ) -> None:
        """Save and exit if any process got a signal."""
        if not self._flags.is_stopping(runner.iter):
            return
        if not _is_step_complete(runner):
            return
        self._saving.save_interrupted(runner)
        # A launcher stops all processes when the first exits: wait until the
        # file is safe.
        barrier()
        runner.logger.warning(
            f'Interrupted: saved after iteration {runner.iter + 1}; continue '
            f'with --resume. Exit status {STATUS}'
        )
        sys.exit(STATUS)

    def after_train(self, runner: Runner) -> None:
        """Restore the signal handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: Any) -> None:
        # Worker processes of data loaders inherit the handler.
        if os.getpid() == self._listener:
            self._flags.stop = True


def _checkpoint_hook(runner: Runner) -> SafeCheckpointHook:
    for hook in runner.hooks:
        if isinstance(hook, SafeCheckpointHook):
            return hook
    raise UserError(
        'PreemptionHook saves by SafeCheckpointHook; set '
        "default_hooks.checkpoint.type='SafeCheckpointHook'"
    )


def _is_step_complete(runner: Runner) -> bool:
    """Whether no accumulated gradients are pending."""
    count = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
    return (runner.iter + 1) % count == 0
