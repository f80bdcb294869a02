"""What each part of the network is worth on the embedded digits.

Each network is trained with several seeds from random weights. The networks
differ in the config of the backbone only.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from mmtransxnet.analysis.complexity import count_macs
from mmtransxnet.analysis.erf import model_fields
from mmtransxnet.analysis.pictures import example_pictures
from mmtransxnet.benchmark.experiments.small_net import (
    LEARNING_RATE,
    set_length,
    use_small_net,
)
from mmtransxnet.benchmark.experiments.training import train_briefly
from mmtransxnet.benchmark.experiments.trials import Trial
from mmtransxnet.engine import load_config
from mmtransxnet.models import TransXNet
from mmtransxnet.utils.build import build_model
from mmtransxnet.weights.loading import load_weights

CONFIG = 'transxnet_t_digits'
ITERATIONS = 200
SIZE = 64
"""Height and width of the pictures in pixels."""

ERF_SIZE = 512
ERF_SHARE = 0.99

SPEED_SHAPE = (4, 3, 224, 224)
"""Input of TransXNet-T in measurements of speed."""

_SPEED_CALLS = 5


@dataclass(frozen=True)
class Network:
    """A network to train.

    Attributes:
        title: What it lacks, in the table.
        changes: Changes of the backbone's config.
    """

    title: str
    changes: Mapping[str, Any] = field(default_factory=dict)


FULL = 'full'

NETWORKS = {
    FULL: Network('full network'),
    'static': Network(
        'static depthwise convolution instead of IDConv',
        dict(token_mixer_cfg=dict(type='StaticMixer')),
    ),
    'no_attention': Network(
        'no attention: that half of the channels passes unchanged',
        dict(token_mixer_cfg=dict(type='LocalMixer')),
    ),
    'no_enhancer': Network(
        'no squeezed token enhancer after the two halves',
        dict(token_mixer_cfg=dict(type='UnenhancedMixer')),
    ),
    'one_kernel': Network(
        '3 x 3 in MS-FFN instead of 1, 3, 5 and 7',
        dict(ffn_cfg=dict(type='MSFFN', kernel_sizes=[3])),
    ),
    'no_refinement': Network(
        'no 3 x 3 convolution of keys and values in OSRA',
        dict(token_mixer_cfg=dict(type='UnrefinedMixer')),
    ),
}


def list_trials(seeds: int) -> list[Trial]:
    """All networks with the first seed, then with the next ones."""
    return [
        dict(network=name, seed=seed, iterations=ITERATIONS)
        for seed in range(seeds)
        for name in NETWORKS
    ]


def config_of(name: str) -> Config:
    """The training of a network."""
    config = load_config(CONFIG)
    use_small_net(config)
    config.model.backbone.update(NETWORKS[name].changes)
    config.optim_wrapper.optimizer.lr = LEARNING_RATE
    set_length(config, ITERATIONS)
    return config


def measure(trial: Trial, folder: Path) -> dict[str, Any]:
    """Train a network; the checkpoint stays in its folder."""
    target = _folder_of(trial, folder)
    _, result = train_briefly(
        config_of(trial['network']), target, trial['seed']
    )
    return result


def list_erf_trials(seeds: int) -> list[Trial]:
    """The effective receptive field of each trained network."""
    return [
        {**trial, 'pixels': ERF_SIZE, 'share': ERF_SHARE}
        for trial in list_trials(seeds)
    ]


def measure_erf(trial: Trial, folder: Path) -> dict[str, Any]:
    """Area of the field of the last stage of a trained network.

    Returns:
        ``'area'``: share of the picture's area, 0 to 1.
    """
    torch.set_num_threads(1)
    model = build_model(config_of(trial['network']))
    checkpoint = _folder_of(trial, folder) / f'iter_{trial["iterations"]}.pth'
    load_weights(model, str(checkpoint))
    field = model_fields(model, example_pictures(), trial['pixels'])[-1]
    (square,) = field.squares([trial['share']])
    return dict(area=square.area)


def list_speed_trials(rounds: int) -> list[Trial]:
    """TransXNet-T with the changes of each network, which take turns."""
    return [
        dict(network=name, round=i, shape=list(SPEED_SHAPE))
        for i in range(rounds)
        for name in NETWORKS
    ]


def measure_speed(trial: Trial) -> dict[str, Any]:
    """Time the inference of TransXNet-T, not folded, with random weights.

    Returns:
        ``'seconds'`` of a call, the fastest of some.
    """
    changes = NETWORKS[trial['network']].changes
    model = TransXNet('t', **changes).eval()
    image = torch.randn(trial['shape'])
    times = []
    with torch.inference_mode():
        model(image)
        for _ in range(_SPEED_CALLS):
            start = time.perf_counter()
            model(image)
            times.append(time.perf_counter() - start)
    return dict(seconds=min(times))


def costs_of(name: str) -> dict[str, int]:
    """Trained parameters and multiply-adds of a network."""
    model = build_model(config_of(name), 'meta').eval()
    return dict(
        parameters=sum(
            p.numel() for p in model.parameters() if p.requires_grad
        ),
        macs=count_macs(model, SIZE, SIZE),
    )


def _folder_of(trial: Trial, folder: Path) -> Path:
    return folder / f'{trial["network"]}_{trial["seed"]}'
