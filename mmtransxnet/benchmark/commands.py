"""Command lines of the tools, for one process, several, or Slurm."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config

from mmtransxnet.utils.errors import UserError


@dataclass(frozen=True)
class Launch:
    """How processes are started.

    Attributes:
        launcher: ``'none'``, ``'pytorch'`` or ``'slurm'``.
        gpus: Number of processes, one GPU each.
        partition: Slurm's partition.
        options: ``--cfg-options`` for all runs.
    """

    launcher: str = 'none'
    gpus: int = 1
    partition: str | None = None
    options: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.launcher == 'slurm' and not self.partition:
            raise UserError('--launcher slurm: name the --partition')
        if self.gpus < 1:
            raise UserError(f'--gpus {self.gpus}: at least one is needed')


@dataclass(frozen=True)
class Command:
    """A command line.

    Attributes:
        words: Program and arguments, from the root of the repository.
        environment: Variables in addition to those of this process.
    """

    words: list[str]
    environment: dict[str, str] = field(default_factory=dict)

    def full_environment(self) -> dict[str, str]:
        """All variables of the process."""
        return {**os.environ, 'PYTHON': sys.executable, **self.environment}


def evaluation_command(
    launch: Launch, name: str, config: str, checkpoint: str, work_dir: Path
) -> Command:
    """The command that evaluates a checkpoint."""
    flags = ['--work-dir', str(work_dir), *_options(launch)]
    return _command(launch, 'test', name, [config, checkpoint], flags)


def training_command(launch: Launch, name: str, config: Config) -> Command:
    """The command that trains a config by its recipe.

    At most the recipe's number of GPUs is used. With fewer, the learning rate
    is scaled.
    """
    published = published_gpus(config)
    gpus = 1 if launch.launcher == 'none' else min(launch.gpus, published)
    launch = Launch(launch.launcher, gpus, launch.partition, launch.options)
    flags = ['--auto-scale-lr'] if gpus < published else []
    flags += _options(launch)
    return _command(launch, 'train', name, [config.filename], flags)


def published_gpus(config: Config) -> int:
    """The number of GPUs of a recipe, from its batch size.

    Raises:
        UserError: The config does not state it.
    """
    total = (config.get('auto_scale_lr') or {}).get('base_batch_size')
    if not total:
        raise UserError(
            f'{config.filename} states no auto_scale_lr.base_batch_size'
        )
    return max(1, total // config.train_dataloader.batch_size)


def _options(launch: Launch) -> list[str]:
    return ['--cfg-options', *launch.options] if launch.options else []


def _command(
    launch: Launch, job: str, name: str, inputs: list[str], flags: list[str]
) -> Command:
    if launch.launcher == 'slurm':
        script = ['bash', f'tools/slurm_{job}.sh', str(launch.partition), name]
        return Command([*script, *inputs, *flags], {'GPUS': str(launch.gpus)})
    if launch.launcher == 'pytorch':
        script = ['bash', f'tools/dist_{job}.sh', *inputs, str(launch.gpus)]
        return Command([*script, *flags])
    return Command([sys.executable, f'tools/{job}.py', *inputs, *flags])
