"""A run that is stopped anywhere and resumed ends as if nothing had been."""

import os
import random
import signal

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.runner import Runner
from torch import nn

from mmtransxnet.engine.hooks.preemption import STATUS
from mmtransxnet.engine.runner.resume import checkpoint_to_load
from mmtransxnet.utils.errors import UserError
from tests.support.compare import assert_identical

pytestmark = pytest.mark.distribution


@pytest.fixture(scope='module', autouse=True)
def _registered():
    """The toys below, known to mmengine while this module runs."""
    toys = [
        (DATASETS, NoisyNumbers),
        (MODELS, NoisyModel),
        (METRICS, MeanWeight),
        (HOOKS, Stop),
    ]
    for registry, toy in toys:
        registry.register_module(module=toy)
    yield
    for registry, toy in toys:
        registry._module_dict.pop(toy.__name__)


class NoisyNumbers(BaseDataset):
    """Ten samples that need all three random number generators."""

    def load_data_list(self):
        return [dict(value=float(i)) for i in range(10)]

    def prepare_data(self, idx):
        noise = random.random() + np.random.rand() + torch.rand(1).item()
        return dict(inputs=torch.tensor([idx + noise]))


class NoisyModel(BaseModel):
    """A batch norm, dropout and mixing as batch augmentations do it."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(
            nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 1)
        )

    def forward(self, inputs, mode='tensor'):
        x = torch.stack(list(inputs)) * np.random.beta(1, 1)
        loss = (self.inner(x) - 1).square().mean()
        return dict(loss=loss) if mode == 'loss' else [loss]


class MeanWeight(BaseMetric):
    """Better with each validation: the best checkpoint changes often."""

    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        MeanWeight.calls.append(len(results))
        return dict(score=float(len(MeanWeight.calls)))

    calls: list = []


class Stop(Hook):
    """Do something after an iteration, or in a validation."""

    priority = 'VERY_LOW'
    losses: dict = {}

    def __init__(self, what, at):
        self.what, self.at = what, at

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        Stop.losses[runner.iter] = outputs['loss'].item()
        if runner.iter + 1 == self.at and self.what == 'crash':
            raise KeyboardInterrupt
        if runner.iter + 1 == self.at and self.what in ('TERM', 'USR1'):
            os.kill(os.getpid(), getattr(signal, f'SIG{self.what}'))

    def before_val_epoch(self, runner):
        if runner.iter == self.at and self.what == 'validation':
            raise KeyboardInterrupt


def config(work_dir, loop, workers=0, stop=None, resume=False, **changes):
    """A run of three epochs of five batches, or as many iterations."""
    what, at = stop or (None, None)
    epochs = loop == 'epoch'
    loader = dict(
        batch_size=2,
        num_workers=workers,
        persistent_workers=workers > 0,  # as the configs have it
        sampler=dict(type='DefaultSampler', shuffle=True),
        dataset=dict(type='NoisyNumbers', serialize_data=False),
    )
    if loop == 'endless':
        loader['sampler']['type'] = 'InfiniteSampler'
    return Config(
        dict(
            model=dict(type='NoisyModel'),
            work_dir=str(work_dir),
            train_dataloader=loader,
            val_dataloader=dict(
                loader, sampler=dict(type='DefaultSampler', shuffle=False)
            ),
            val_evaluator=dict(type='MeanWeight'),
            val_cfg=dict(),
            train_cfg=dict(type='ResumableEpochLoop', max_epochs=3)
            if epochs
            else dict(type='ResumableIterLoop', max_iters=15, val_interval=5),
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01)),
            param_scheduler=dict(
                type='PolyLR', by_epoch=False, begin=0, end=15
            ),
            default_hooks=dict(
                checkpoint=dict(
                    type='SafeCheckpointHook',
                    by_epoch=epochs,
                    interval=1 if epochs else 4,
                    max_keep_ckpts=2,
                    save_best='score',
                    rule='greater',
                ),
                preemption=dict(type='PreemptionHook'),
            ),
            custom_hooks=[
                dict(type='EMAHook', ema_type='ExponentialMovingAverage'),
                dict(type='Stop', what=what, at=at),
            ],
            randomness=dict(seed=7, deterministic=True),
            launcher='none',
            log_level='WARNING',
            resume=resume,
            experiment_name=f'{work_dir.name}_{resume}_{what}_{at}',
            **changes,
        )
    )


def run(*args, **kwargs):
    """Run it; return the losses by iteration."""
    return train(config(*args, **kwargs))


def train(run_config):
    """Train as tools/train.py does."""
    Stop.losses.clear()
    MeanWeight.calls.clear()
    checkpoint_to_load(run_config)
    run_and_end(Runner.from_cfg(run_config))
    return dict(Stop.losses)


def run_and_end(runner):
    """Train, and end the workers, as the end of a process does.

    The garbage collector ends their queues before it tells them, and torch
    waits five seconds for each that nobody has told.
    """
    try:
        runner.train()
    finally:
        for loop in (runner._train_loop, runner._val_loop):
            loader = getattr(loop, 'dataloader', None)
            iterator = getattr(loader, '_iterator', None)
            if iterator is not None:
                iterator._shutdown_workers()


def last_state(folder):
    """Everything of the last checkpoint that is not a time."""
    names = ['epoch_3.pth', 'iter_15.pth']
    (path,) = (folder / n for n in names if (folder / n).exists())
    content = torch.load(path, weights_only=False)
    hub = content.pop('message_hub')
    content['meta'] = {k: content['meta'][k] for k in ('epoch', 'iter')}
    content['loss'] = hub['log_scalars']['train/loss'].data[0].tolist()
    return content


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    """State and losses of a run of each loop that nobody stopped."""
    found = {}
    for loop in ('epoch', 'iter', 'endless'):
        folder = tmp_path_factory.mktemp(loop)
        losses = run(folder, loop)
        found[loop] = (last_state(folder), losses)
    return found


def test_validated_and_trained(undisturbed):
    """The toy learns, and draws from all generators."""
    state, losses = undisturbed['epoch']
    assert sorted(losses) == list(range(15))
    assert len(set(losses.values())) == 15
    assert 'ema_state_dict' in state
    assert state['optimizer']['state']


@pytest.mark.parametrize('loop', ['epoch', 'iter', 'endless'])
@pytest.mark.parametrize(
    ('workers', 'what', 'at'),
    [
        (2, 'crash', 6),
        (0, 'crash', 10),
        (0, 'validation', 10),
        (0, 'TERM', 1),
        (2, 'USR1', 7),
        (0, 'TERM', 10),
    ],
)
def test_exact(undisturbed, tmp_path, loop, workers, what, at):
    """Bit by bit: weights, averages, optimizer, statistics, losses."""
    state, losses = undisturbed[loop]
    expected = SystemExit if what in ('TERM', 'USR1') else KeyboardInterrupt
    with pytest.raises(expected) as stopped:
        run(tmp_path, loop, workers, stop=(what, at))
    if expected is SystemExit:
        assert stopped.value.code == STATUS
        # Saved at once: what comes now begins after it.
        assert list(tmp_path.glob(f'interrupted_iter_{at}.pth'))
    again = run(tmp_path, loop, workers, resume=True)
    assert_identical(last_state(tmp_path), state)
    assert again == {i: losses[i] for i in again}
    if expected is SystemExit:
        assert sorted(again) == list(range(at, 15))
    assert not list(tmp_path.glob('interrupted*'))


@pytest.mark.parametrize('loop', ['epoch', 'iter'])
def test_interrupted_validation_is_repeated(tmp_path, loop):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, loop, stop=('validation', 15))
    assert len(MeanWeight.calls) == 2
    run(tmp_path, loop, resume=True)
    assert len(MeanWeight.calls) == 1


@pytest.mark.parametrize('loop', ['epoch', 'iter', 'endless'])
def test_number_of_workers_does_not_matter(undisturbed, tmp_path, loop):
    assert run(tmp_path, loop, 2) == undisturbed[loop][1]


class Keep(Hook):
    """Keeps the batches, and what the steps would draw."""

    def before_train(self, runner):
        self.batches, self.drawn = {}, {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.batches[runner.iter] = data_batch
        state = torch.get_rng_state()
        self.drawn[runner.iter] = torch.rand(1)
        torch.set_rng_state(state)


@pytest.mark.parametrize('loop', ['epoch', 'iter', 'endless'])
@pytest.mark.parametrize('workers', [0, 2])
def test_a_batch_is_loaded_again(tmp_path, loop, workers):
    """Of a run that was resumed, by other workers, as a replay does."""
    with pytest.raises(SystemExit):
        run(tmp_path, loop, stop=('TERM', 7))
    again = config(tmp_path, loop, resume=True)
    checkpoint_to_load(again)
    runner, keep = Runner.from_cfg(again), Keep()
    runner.register_hook(keep)
    run_and_end(runner)
    for number in (7, 13):
        other = Runner.from_cfg(config(tmp_path / f'{number}', loop, workers))
        batch = other.train_loop.batch_of(number)
        assert_identical(batch, keep.batches[number])
        assert_identical(torch.rand(1), keep.drawn[number])
        iterator = other.train_loop.dataloader._iterator
        if iterator is not None:
            iterator._shutdown_workers()


def test_a_loader_instead_of_its_config(undisturbed, tmp_path):
    one = config(tmp_path, 'endless', 1)
    one.train_cfg.update(max_iters=3)
    settings = dict(
        one.to_dict(),
        train_dataloader=Runner.build_dataloader(one.train_dataloader, 7),
    )
    Stop.losses.clear()
    run_and_end(Runner(**settings))
    losses = undisturbed['endless'][1]
    assert Stop.losses == {i: losses[i] for i in range(3)}


def test_samples_and_steps_draw_different_numbers(tmp_path, monkeypatch):
    drawn = dict(sample=[], step=[])

    def load(self, idx):
        drawn['sample'].append(random.random())
        return dict(inputs=torch.ones(1))

    def forward(self, inputs, mode='tensor'):
        drawn['step'].append(random.random())
        return dict(loss=self.inner(torch.stack(list(inputs))).mean())

    monkeypatch.setattr(NoisyNumbers, 'prepare_data', load)
    monkeypatch.setattr(NoisyModel, 'forward', forward)
    one = config(tmp_path, 'endless')
    one.update(val_dataloader=None, val_cfg=None, val_evaluator=None)
    one.default_hooks.checkpoint.update(save_best=None)
    train(one)
    everything = drawn['sample'] + drawn['step']
    assert (len(drawn['sample']), len(drawn['step'])) == (30, 15)
    assert len(set(everything)) == len(everything)


def test_twice_interrupted_in_an_epoch(undisturbed, tmp_path):
    state, _ = undisturbed['epoch']
    for resume, at in ((False, 6), (True, 8)):
        with pytest.raises(SystemExit):
            run(tmp_path, 'epoch', stop=('TERM', at), resume=resume)
    run(tmp_path, 'epoch', resume=True)
    assert_identical(last_state(tmp_path), state)


def test_a_drawn_seed_goes_on(tmp_path):
    """Without a seed in the config, that of the interrupted run is used."""
    first = config(tmp_path, 'epoch', stop=('TERM', 3))
    first.randomness.seed = None
    with pytest.raises(SystemExit):
        train(first)
    path = tmp_path / 'interrupted_iter_3.pth'
    drawn = torch.load(path, weights_only=False)['meta']['seed']
    again = config(tmp_path, 'epoch', resume=True)
    again.randomness.seed = None
    checkpoint_to_load(again)
    assert again.randomness.seed == drawn


def test_other_epoch_length(tmp_path):
    """Of a whole epoch: goes on; from the middle: refused, not wrong."""
    with pytest.raises(SystemExit):
        run(tmp_path, 'epoch', stop=('TERM', 7))
    other = config(tmp_path, 'epoch', resume=True)
    other.train_dataloader.batch_size = 5
    with pytest.raises(UserError, match='middle of an epoch of 5 batches'):
        train(other)
    (tmp_path / 'interrupted_iter_7.pth').unlink()
    other = config(tmp_path, 'epoch', resume=True)
    other.train_dataloader.batch_size = 5
    assert sorted(train(other)) == list(range(2, 6))


def test_gradients_are_accumulated_before_it_stops(tmp_path):
    """Told after 7 of 15 iterations in steps of 3: saved after 9."""
    one = config(tmp_path, 'epoch', stop=('TERM', 7))
    one.optim_wrapper.accumulative_counts = 3
    with pytest.raises(SystemExit):
        train(one)
    assert (tmp_path / 'interrupted_iter_9.pth').exists()


def test_signals_are_as_before_after_training(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    run(tmp_path, 'epoch')
    assert signal.getsignal(signal.SIGTERM) == before
