"""A run of six iterations, one of which may be bad."""

import copy
import math
import os

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import nn

import mmtransxnet  # noqa: F401, registers the hooks

# The third of six iterations is bad.
BAD = 3
ITERATIONS = 6


@MODELS.register_module()
class Fragile(BaseModel):
    """Dropout, a batch norm, and a loss that the batch can spoil."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.linear = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.dropout = nn.Dropout()

    def forward(self, inputs, data_samples=None, mode='loss'):
        inputs = torch.stack(inputs)
        spoil = inputs[:, 0].max()
        clean = torch.where(inputs > 100, 0, inputs)
        loss = self.dropout(self.norm(self.linear(clean))).square().mean()
        if spoil == 200:  # an infinite loss, finite gradients
            return dict(loss_a=loss, loss_b=loss.detach() * math.inf)
        if spoil == 300:  # a finite loss, infinite gradients
            loss = loss + self.linear.weight.sum().mul(0).sqrt()
        if spoil == 400:  # gradients whose squares are infinite
            loss = loss + self.linear.weight.sum() * 1e25
        return dict(loss_a=loss, loss_b=loss * 2)


KINDS = dict(nan=math.nan, infinite_loss=200.0, gradient=300.0)
VALUES = dict(KINDS, large_gradient=400.0)


def batches(kind, bad=(BAD,), rank=0):
    """Six batches of two samples; some are bad, from the first process."""
    generator = torch.Generator().manual_seed(rank)
    data = torch.randn(2 * ITERATIONS, 4, generator=generator)
    if kind is not None:
        for number in bad:
            data[2 * number - 2, 0] = VALUES[kind]
    return [dict(inputs=one) for one in data]


class Witness(Hook):
    """Keeps what there was after each iteration."""

    priority = 'HIGHEST'

    def before_train(self, runner):
        self.seen = [self.state(runner)]

    def after_train_iter(self, runner, *args, **kwargs):
        self.seen.append(self.state(runner))

    @staticmethod
    def state(runner):
        optimizer = runner.optim_wrapper.optimizer.state_dict()
        # The schedule goes on, and changes the groups.
        return copy.deepcopy(
            dict(model=runner.model.state_dict(), optimizer=optimizer['state'])
        )


def make_runner(
    folder, kind='nan', by_epoch=True, wrapper=None, rank=0, **hook
):
    """A run of six iterations, and what watches it."""
    bad = hook.pop('bad', (BAD,))
    options = hook.pop('options', {})
    hooks = hook.pop('hooks', None)
    processes = hook.pop('processes', 1)
    # Samplers deal the samples out to the processes.
    dataset = [
        one for one in batches(kind, bad, rank) for _ in range(processes)
    ]
    witness = Witness()
    loop = (
        dict(type='ResumableEpochLoop', max_epochs=1)
        if by_epoch
        else dict(type='ResumableIterLoop', max_iters=ITERATIONS)
    )
    sampler = 'DefaultSampler' if by_epoch else 'InfiniteSampler'
    config = Config(
        dict(
            model=dict(type='Fragile'),
            work_dir=str(folder),
            default_scope='mmengine',
            experiment_name=os.path.basename(folder) + str(rank),
            train_cfg=loop,
            train_dataloader=dict(
                batch_size=2, num_workers=0, dataset=dataset,
                sampler=dict(type=sampler, shuffle=False),
            ),
            optim_wrapper={
                'type': 'OptimWrapper',
                'optimizer': dict(type='AdamW', lr=0.1),
                **(wrapper or {}),
            },
            param_scheduler=dict(type='LinearLR', by_epoch=False, end=3),
            default_hooks=hooks
            or dict(bad_numbers=dict(type='NonFiniteHook', **hook)),
            randomness=dict(seed=0),
            launcher='none',
            **options,
        )
    )  # fmt: skip
    runner = Runner.from_cfg(config)
    runner.register_hook(witness, 'HIGHEST')
    return runner, witness


def scaled_runner(folder, kind, scale, **hook):
    """float16's loss scaling, which torch has for CPUs, too."""
    runner, witness = make_runner(
        folder, kind, wrapper=dict(type='MixedPrecisionOptimWrapper'), **hook
    )
    build = runner.build_optim_wrapper

    def with_scaler(config):
        wrapper = build(config)
        wrapper.loss_scaler = torch.amp.GradScaler('cpu', init_scale=scale)
        return wrapper

    runner.build_optim_wrapper = with_scaler
    return runner, witness
