"""Training runs from the command line."""

import argparse
from functools import partial
from typing import Any

from mmengine.config import Config
from torch import nn

from mmtransxnet.engine.checks.preflight import check_checkpoint
from mmtransxnet.engine.config.command_line import load_run, run_parser
from mmtransxnet.engine.hooks.compile import check_compiler
from mmtransxnet.engine.runner.build import build_runner
from mmtransxnet.engine.runner.distributed import in_turn, use_fsdp
from mmtransxnet.engine.runner.resume import checkpoint_to_load
from mmtransxnet.utils.build import build_model
from mmtransxnet.utils.errors import UserError


def train_parser(description: str) -> argparse.ArgumentParser:
    """The usual OpenMMLab flags of training."""
    parser = run_parser(description)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint, or without a value from the '
        'newest complete one in the work directory, if there is one',
    )
    parser.add_argument(
        '--amp',
        action='store_true',
        help='train with mixed precision: float16 on a GPU, bfloat16 on a CPU',
    )
    parser.add_argument(
        '--compile',
        action='store_true',
        help='compile the backbone (torch.compile); slow in the first '
        'iterations, faster in later ones',
    )
    parser.add_argument(
        '--fsdp',
        action='store_true',
        help='shard the model over the GPUs (needs a launcher)',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the batch size of this run',
    )
    return parser


def apply_flags(config: Config, args: argparse.Namespace) -> None:
    """Write the flags of training into the config."""
    if args.amp:
        config.optim_wrapper.type = 'MixedPrecisionOptimWrapper'
    if args.compile:
        check_compiler()
        hooks = config.get('custom_hooks') or []
        config.custom_hooks = [*hooks, dict(type='CompileHook')]
    if args.fsdp:
        use_fsdp(config)
    if args.auto_scale_lr:
        if 'auto_scale_lr' not in config:
            raise UserError(
                f'--auto-scale-lr: {args.config} states no '
                'auto_scale_lr.base_batch_size'
            )
        config.auto_scale_lr.enable = True


def train(args: argparse.Namespace) -> None:
    """Run the fast checks, then train."""
    config = load_run(args)
    apply_flags(config, args)
    checkpoint = checkpoint_to_load(config, args.resume)
    if checkpoint and 'backbone' in config.model:
        # The checkpoint has all weights; the pretrained file of the backbone
        # may be missing.
        config.model.backbone.init_cfg = None
    runner = build_runner(config, ['train', 'val'])
    if checkpoint:
        in_turn(partial(check_weights, config, runner.model, args.config))
    runner.train()


def check_weights(config: Config, model: Any, name: str) -> None:
    """Check that the weights in ``load_from`` match the model."""
    if not isinstance(model, nn.Module):  # sharded: not built yet
        model = build_model(config, 'meta')
    # A resumed run has the same model.
    allow = [] if config.resume else config.get('load_allow', [])
    check_checkpoint(config.load_from, model, name, allow)
