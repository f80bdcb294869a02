"""The flags that all tools share, and their effect on the config."""

import argparse
import os
from pathlib import Path

from mmengine.config import Config

from mmtransxnet.engine.config.loading import load_config
from mmtransxnet.engine.config.options import OptionsAction
from mmtransxnet.engine.runner.distributed import prepare_launch


def config_parser(
    description: str | None, required: bool = True
) -> argparse.ArgumentParser:
    """A parser with the flags of all tools that read a config."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        'config', nargs=None if required else '?', help='config file'
    )
    parser.add_argument(
        '--data-root',
        help='where the data is; instead of COCO_ROOT, ADE_ROOT, '
        'IMAGENET_ROOT, DIGITS_ROOT or DATA_ROOT in the environment',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=OptionsAction,
        help='override the config: key=value, key="[a,b]"',
    )
    return parser


def run_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the flags of all tools that start a Runner."""
    parser = config_parser(description)
    parser.add_argument(
        '--work-dir', help='logs and checkpoints; work_dirs/CONFIG if not set'
    )
    parser.add_argument(
        '--no-check',
        action='store_true',
        help='check neither the data beforehand nor its samples in the run',
    )
    add_launcher(parser)
    return parser


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add the flags of tools that run in several processes."""
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
    )
    # torchrun and torch.distributed.launch use different spellings.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def join_processes(config: Config, args: argparse.Namespace) -> None:
    """Join the process group that the flags name.

    Raises:
        UserError: As :func:`prepare_launch`.
    """
    config.launcher = args.launcher
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    prepare_launch(config)


def load_run(args: argparse.Namespace) -> Config:
    """Read the config, apply the shared flags, join the process group.

    Raises:
        UserError: As :func:`load_config` and :func:`prepare_launch`.
    """
    config = load_config(args.config, args.cfg_options, args.data_root)
    if args.no_check:
        config.check_data = False
        config.bad_data = None
    if args.work_dir:
        config.work_dir = args.work_dir
    config.setdefault('work_dir', f'work_dirs/{Path(args.config).stem}')
    join_processes(config, args)
    return config
