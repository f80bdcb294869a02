"""Short trainings in this process, as tools/train.py does them."""

import os
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmtransxnet.engine.runner.build import build_runner
from mmtransxnet.engine.runner.train import check_weights


def train_briefly(
    config: Config, folder: Path, seed: int
) -> tuple[Runner, dict[str, Any]]:
    """Train and validate a config, then return what was measured.

    Args:
        config: A run that validates at its end; changed in place.
        folder: Folder of its files. The last checkpoint stays there.
        seed: Seed of weights, order and augmentation.

    Returns:
        The finished Runner, and the last validation's metrics with
        ``seconds``, the wall time of training and validation.
    """
    config.work_dir = str(folder)
    # mmengine refuses a second Runner of a name in a process.
    config.experiment_name = f'{folder.name}_{os.getpid()}_{time.time_ns()}'
    config.randomness = dict(seed=seed, deterministic=False)
    config.log_level = 'WARNING'
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        # A run is too short for workers to be worthwhile.
        config[name].update(num_workers=0, persistent_workers=False)
    torch.set_num_threads(1)
    runner = build_runner(config, ['train', 'val'])
    if config.load_from:
        check_weights(config, runner.model, folder.name)
    start = time.perf_counter()
    runner.train()
    seconds = time.perf_counter() - start
    scalars = runner.message_hub.log_scalars
    metrics = {
        name.removeprefix('val/'): float(buffer.current())
        for name, buffer in scalars.items()
        if name.startswith('val/') and 'time' not in name
    }
    return runner, {**metrics, 'seconds': round(seconds, 1)}
