"""Evaluate a checkpoint of any model with the metrics of its config."""

import argparse
import os
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.registry import METRICS
from mmengine.runner import Runner

from mmtransxnet.engine import (
    UserError,
    check_checkpoint,
    check_data,
    load_config,
    report_user_errors,
)


def parse_args() -> argparse.Namespace:
    """Read the usual OpenMMLab flags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--work-dir', help='logs and metrics; work_dirs/CONFIG if not set'
    )
    parser.add_argument('--out', help='write all predictions to this .pkl')
    parser.add_argument('--show-dir', help='draw predictions into this folder')
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
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out {args.out} must end in .pkl or .pickle')
    return args


def apply_flags(config: Config, args: argparse.Namespace) -> None:
    """Write the flags into the config."""
    config.launcher = args.launcher
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.work_dir:
        config.work_dir = args.work_dir
    config.setdefault('work_dir', f'work_dirs/{Path(args.config).stem}')
    config.load_from = args.checkpoint
    # The weights are all there; what they started from is not needed.
    if 'backbone' in config.model:
        config.model.backbone.init_cfg = None
    if args.show_dir:
        show_in(config, args.show_dir)


def show_in(config: Config, folder: str) -> None:
    """Let the visualisation hook of the config draw into a folder."""
    hook = config.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise UserError('--show-dir: the config has no visualization hook')
    if hook.type == 'DetVisualizationHook':
        hook.update(draw=True, test_out_dir=str(Path(folder).resolve()))
    elif hook.type == 'VisualizationHook':
        hook.update(enable=True, interval=1, out_dir=folder)
    else:
        raise UserError(f'--show-dir: cannot direct a {hook.type}')


def main() -> None:
    """Check what can be checked in seconds, then evaluate."""
    args = parse_args()
    with report_user_errors():
        config = load_config(args.config, args.cfg_options)
        apply_flags(config, args)
        check_data(config, ['test'])
        runner = Runner.from_cfg(config)
        check_checkpoint(args.checkpoint, runner.model, args.config)
    if args.out:
        # mmdet's packs masks, which are large.
        scope = config.get('default_scope')
        name = 'DumpDetResults' if scope == 'mmdet' else 'DumpResults'
        dump = METRICS.build(dict(type=name, out_file_path=args.out))
        runner.test_evaluator.metrics.append(dump)
    runner.test()


if __name__ == '__main__':
    main()
