"""A small TransXNet for experiments on a CPU, and short schedules for it."""

from typing import Any

from mmengine.config import Config

ARCH: dict[str, Any] = dict(
    layers=[1, 1, 2, 1],
    embed_dims=[24, 48, 96, 128],
    kernel_size=[7, 7, 7, 7],
    num_groups=[2, 2, 2, 2],
    sr_ratio=[8, 4, 2, 1],
    num_heads=[1, 2, 3, 4],
    mlp_ratios=[4, 4, 4, 4],
)
"""The stages, reductions and kernels of T; fewer blocks and channels, so that
a training takes half a minute on a CPU core."""

LEARNING_RATE = 2e-3
"""Of classifiers from scratch: the better of two, 2e-3 and 4e-3, with one
seed."""


def use_small_net(config: Config) -> None:
    """Put the small network into a classifier, or a model with an FPN."""
    model = config.model
    model.backbone.arch = ARCH
    channels = ARCH['embed_dims']
    if 'in_channels' in model.neck:
        first = len(channels) - len(model.neck.in_channels)
        model.neck.in_channels = channels[first:]
    else:
        model.head.in_channels = channels[-1]


def set_length(config: Config, iterations: int) -> None:
    """Train for some iterations and validate once, at the end.

    The warm-up is that of the config, at most a tenth of the iterations.
    """
    config.train_cfg = dict(
        type='ResumableIterLoop',
        max_iters=iterations,
        val_interval=iterations,
    )
    warmup, cosine = config.param_scheduler
    warmup.end = min(warmup.end, iterations // 10)
    cosine.update(by_epoch=False, end=iterations)
    cosine.pop('convert_to_iter_based', None)
    config.default_hooks.checkpoint.update(
        by_epoch=False, interval=iterations, max_keep_ckpts=1
    )
    config.default_hooks.logger.interval = iterations
    config.log_processor = dict(by_epoch=False)
