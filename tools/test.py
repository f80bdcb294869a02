"""Evaluate a checkpoint or an exported model with the metrics of a config."""

import argparse
from functools import partial
from pathlib import Path

# Before torch, for the choice in mmtransxnet.utils.waiting_threads.
import mmtransxnet  # noqa: F401

# isort: split
from mmengine.config import Config, ConfigDict
from mmengine.registry import METRICS

from mmtransxnet.deploy.evaluation import check_classes, exported_config
from mmtransxnet.deploy.runtime import ENGINES
from mmtransxnet.engine import (
    UserError,
    build_runner,
    check_checkpoint,
    check_folder,
    closing_process_group,
    in_turn,
    load_run,
    report_user_errors,
    run_parser,
)
from mmtransxnet.utils.allocator import keep_freed_memory


def parse_args() -> argparse.Namespace:
    """Read the usual OpenMMLab flags."""
    parser = run_parser(__doc__)
    parser.add_argument(
        'checkpoint', help='checkpoint file, or folder of tools/export.py'
    )
    parser.add_argument('--out', help='write all predictions to this .pkl')
    parser.add_argument('--show-dir', help='draw predictions into this folder')
    parser.add_argument(
        '--tta',
        action='store_true',
        help='test-time augmentation: multi-scale and flip, as the config has',
    )
    parser.add_argument(
        '--fold',
        action='store_true',
        help='evaluate the inference form: equal outputs, faster',
    )
    parser.add_argument(
        '--engine',
        choices=list(ENGINES),
        help='runs an exported folder; by default the first that is installed',
    )
    parser.add_argument(
        '--bf16',
        action='store_true',
        help='run an exported folder in bfloat16 (OpenVINO)',
    )
    args = parser.parse_args()
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out {args.out} must end in .pkl or .pickle')
    return args


def check_flags(args: argparse.Namespace) -> None:
    """Refuse flags that do not belong to what is evaluated."""
    if Path(args.checkpoint).is_dir():
        given = [name for name in ('fold', 'tta') if getattr(args, name)]
        given += ['launcher'] if args.launcher != 'none' else []
        if given:
            raise UserError(
                f'--{given[0]}: {args.checkpoint} is an exported model, which '
                'runs in one process and as it was exported; leave the flag '
                'out'
            )
    elif args.engine or args.bf16:
        raise UserError(
            f'--{"engine" if args.engine else "bf16"}: {args.checkpoint} is '
            'not a folder of tools/export.py'
        )


def apply_flags(config: Config, args: argparse.Namespace) -> None:
    """Write the flags of testing into the config."""
    if args.out:
        check_folder(Path(args.out).parent, '--out')
        if Path(args.out).is_dir():
            raise UserError(f'--out {args.out} is a folder, not a file')
    if args.show_dir:
        check_folder(args.show_dir, '--show-dir')
    config.load_from = args.checkpoint
    # The checkpoint has all weights; pretrained ones are not needed.
    if 'backbone' in config.model:
        config.model.backbone.init_cfg = None
    if args.fold:
        hooks = config.get('custom_hooks') or []
        config.custom_hooks = [*hooks, dict(type='FoldHook')]
    if args.tta:
        augment(config, args.config)
    if args.show_dir:
        show_in(config, args.show_dir)


def augment(config: Config, name: str) -> None:
    """Test on several versions of each image and merge the results."""
    missing = [k for k in ('tta_model', 'tta_pipeline') if not config.get(k)]
    if missing:
        raise UserError(f'--tta: {name} has no {" and no ".join(missing)}')
    config.test_dataloader.dataset.pipeline = config.tta_pipeline
    config.model = ConfigDict(**config.tta_model, module=config.model)


def show_in(config: Config, folder: str) -> None:
    """Let the visualisation hook of the config draw into a folder."""
    hook = config.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise UserError('--show-dir: the config has no visualization hook')
    if hook.type == 'DetVisualizationHook':
        hook.update(draw=True, test_out_dir=str(Path(folder).resolve()))
    elif hook.type == 'VisualizationHook':
        hook.update(enable=True, interval=1, out_dir=folder)
    elif hook.type == 'SegVisualizationHook':
        hook.update(draw=True, interval=1)
        config.visualizer.save_dir = folder
    else:
        raise UserError(f'--show-dir: cannot direct a {hook.type}')


def evaluate(args: argparse.Namespace) -> None:
    """Run the fast checks, then evaluate."""
    check_flags(args)
    config = load_run(args)
    apply_flags(config, args)
    if Path(args.checkpoint).is_dir():
        config = exported_config(
            config, args.checkpoint, args.engine, args.bf16
        )
        runner = build_runner(config, ['test'])
        check_classes(runner)
    else:
        runner = build_runner(config, ['test'])
        model = runner.model.module if args.tta else runner.model
        in_turn(partial(check_checkpoint, args.checkpoint, model, args.config))
    if args.out:
        # mmdet's DumpDetResults compresses masks, which are large.
        scope = config.get('default_scope')
        name = 'DumpDetResults' if scope == 'mmdet' else 'DumpResults'
        dump = METRICS.build(dict(type=name, out_file_path=args.out))
        runner.test_evaluator.metrics.append(dump)
    runner.test()


def main() -> None:
    """Evaluate, and close the process group."""
    args = parse_args()
    with report_user_errors(), closing_process_group():
        keep_freed_memory()
        evaluate(args)


if __name__ == '__main__':
    main()
