"""Clusters take machines back: save, and say that the run is to go on."""

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
"""Exit status of a run that was asked to stop: EX_TEMPFAIL of sysexits.h."""

# Windows has no SIGUSR1.
SIGNALS = tuple(
    getattr(signal, name)
    for name in ('SIGTERM', 'SIGUSR1')
    if hasattr(signal, name)
)


@HOOKS.register_module()
class PreemptionHook(Hook):
    """At SIGTERM or SIGUSR1, save after the current iteration and exit.

    The exit status is :data:`STATUS`; ``--resume`` goes on exactly there. One
    process that gets it is enough: all stop after the same iteration. With
    gradient accumulation they stop when the gradients have been used.
    """

    # After the schedulers, and after the checkpoint that may be due anyway.
    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        """Listen from now on."""
        self._flags: Any = flags_of(runner)
        self._saving = _checkpoint_hook(runner)
        self._listener = os.getpid()
        self._before = {
            number: signal.signal(number, self._hear) for number in SIGNALS
        }

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping | None = None,
    ) -> None:
        """Save and exit, if this or another process was asked to."""
        if not self._flags.is_stopping(runner.iter):
            return
        if not _is_step_complete(runner):
            return
        self._saving.save_interrupted(runner)
        # A launcher stops all when the first has ended: not before the file
        # is safe.
        barrier()
        runner.logger.warning(
            f'Interrupted: saved after iteration {runner.iter + 1}; go on '
            f'with --resume. Exit status {STATUS}'
        )
        sys.exit(STATUS)

    def after_train(self, runner: Runner) -> None:
        """Stop listening."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: Any) -> None:
        # Processes that load data have inherited this.
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
    """Whether no gradients wait for those of the next iterations."""
    count = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
    return (runner.iter + 1) % count == 0
