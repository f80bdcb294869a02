"""Train any model of the suite, or any other, from its config."""

import argparse
import os
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from mmtransxnet.engine import (
    UserError,
    check_checkpoint,
    check_data,
    check_init_weights,
    checkpoint_to_load,
    load_config,
    report_user_errors,
)


def parse_args() -> argparse.Namespace:
    """Read the usual OpenMMLab flags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--work-dir', help='logs and checkpoints; work_dirs/CONFIG if not set'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint, or without a value from the '
        'latest one in the work directory',
    )
    parser.add_argument(
        '--amp', action='store_true', help='train with mixed precision'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the batch size of this run',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override the config: key=value, key="[a,b]"',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
    )
    # torchrun and torch.distributed.launch pass one spelling or the other.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    return parser.parse_args()


def apply_flags(config: Config, args: argparse.Namespace) -> None:
    """Write the flags into the config."""
    config.launcher = args.launcher
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.work_dir:
        config.work_dir = args.work_dir
    config.setdefault('work_dir', f'work_dirs/{Path(args.config).stem}')
    if args.resume:
        config.resume = True
        config.load_from = None if args.resume == 'auto' else args.resume
    if args.amp:
        config.optim_wrapper.type = 'AmpOptimWrapper'
        config.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'auto_scale_lr' not in config:
            raise UserError(
                f'--auto-scale-lr: {args.config} states no '
                'auto_scale_lr.base_batch_size'
            )
        config.auto_scale_lr.enable = True


def main() -> None:
    """Check what can be checked in seconds, then train."""
    args = parse_args()
    with report_user_errors():
        config = load_config(args.config, args.cfg_options)
        apply_flags(config, args)
        check_data(config, ['train', 'val'])
        checkpoint = checkpoint_to_load(config)
        if checkpoint is None:
            check_init_weights(config)
        elif 'backbone' in config.model:
            # The checkpoint has all weights; the file that the backbone
            # once started from may be gone.
            config.model.backbone.init_cfg = None
        runner = Runner.from_cfg(config)
        if checkpoint:
            check_checkpoint(checkpoint, runner.model, args.config)
    runner.train()


if __name__ == '__main__':
    main()
