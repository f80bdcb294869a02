"""Check the files of a run and build its Runner."""

from collections.abc import Sequence

from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmtransxnet.engine.checks.corrupt_samples import guard_data, record_of
from mmtransxnet.engine.checks.preflight import (
    check_data,
    check_folder,
    check_init_weights,
)
from mmtransxnet.engine.runner.distributed import in_turn
from mmtransxnet.engine.runner.readable import ReadableRunner, SummaryHook


def build_runner(config: Config, splits: Sequence[str]) -> Runner:
    """Check all files it reads, then build the Runner.

    Args:
        config: The run.
        splits: The splits it reads, out of ``'train'``, ``'val'``,
            ``'test'``.

    Raises:
        UserError: As :func:`check_data`, :func:`check_init_weights` and
            :func:`record_of`.
    """
    record = record_of(config)

    def check() -> None:
        check_folder(config.work_dir, '--work-dir')
        check_data(config, splits)
        check_init_weights(config)
        if record and 'train' in splits and not config.get('resume'):
            record.clear()

    in_turn(check)
    if 'runner_type' in config:
        runner = RUNNERS.build(config)
    else:
        runner = ReadableRunner.from_cfg(config)
    guard_data(runner, config)
    runner.register_hook(SummaryHook(), SummaryHook.priority)
    return runner
