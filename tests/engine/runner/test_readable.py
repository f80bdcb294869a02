"""The summary of a run, for whatever a run may consist of."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.visualization import Visualizer
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    SequentialSampler,
    TensorDataset,
)

from mmtransxnet.engine.runner.readable import ReadableRunner, SummaryHook

DATA = TensorDataset(torch.zeros(7, 1))


class Stream(IterableDataset):
    """Data without a length."""

    def __iter__(self):
        return iter(())


def summary(**parts):
    """What the hook logs about a run."""
    lines = []
    model = nn.Linear(1000, 20, bias=False)
    runner = dict(
        train_dataloader=DataLoader(DATA, 2),
        model=model,
        optim_wrapper=OptimWrapper(torch.optim.SGD(model.parameters(), 0.5)),
        max_iters=8,
        max_epochs=2,
        iter=0,
        work_dir='work',
        log_dir='work/log',
        logger=SimpleNamespace(info=lines.append),
    )
    SummaryHook().before_train(SimpleNamespace(**{**runner, **parts}))
    return lines[0]


def test_an_ordinary_run():
    text = summary()
    assert 'TensorDataset, 7 samples, batches of 2' in text
    assert 'Linear, 0.02 M parameters' in text
    assert '2 epochs, 8 iterations, SGD, learning rate 0.5' in text


def test_batches_of_a_batch_sampler():
    sampler = BatchSampler(SequentialSampler(DATA), 3, drop_last=False)
    loader = DataLoader(DATA, batch_sampler=sampler)
    assert 'batches of 3' in summary(train_dataloader=loader)


def test_data_without_a_length():
    text = summary(train_dataloader=DataLoader(Stream(), 2))
    assert 'Stream, batches of 2' in text


@pytest.mark.parametrize('initial', [{}, {'initial_lr': 2.0}])
def test_several_optimizers(initial):
    first, second = nn.Linear(1, 1), nn.Linear(1, 1)
    wrappers = OptimWrapperDict(
        a=OptimWrapper(torch.optim.SGD(first.parameters(), 0.1)),
        b=OptimWrapper(torch.optim.AdamW(second.parameters(), 0.3)),
    )
    wrappers['b'].optimizer.param_groups[0].update(initial)
    expected = initial.get('initial_lr', 0.3)
    text = summary(optim_wrapper=wrappers)
    assert f'SGD, AdamW, learning rate {expected:g}' in text


@pytest.mark.parametrize('config', [None, dict(name='the same')])
def test_each_run_has_a_visualizer_of_its_own(tmp_path, config):
    """Even of one process, after an inferencer of the same name."""
    Visualizer.get_instance('the same')
    built = []
    for number in range(2):
        runner = object.__new__(ReadableRunner)
        runner._experiment_name = f'run {tmp_path.name} {number}'
        runner._log_dir = str(tmp_path / str(number))
        cfg = config and dict(
            type='Visualizer',
            vis_backends=[dict(type='LocalVisBackend')],
            save_dir=runner._log_dir,
            **config,
        )
        built.append(runner.build_visualizer(cfg))
    assert built[0] is not built[1]
    for number, visualizer in enumerate(built):
        visualizer.add_scalar('loss', 1.0)
        written = tmp_path / f'{number}/vis_data/scalars.json'
        assert written.read_text().count('loss') == 1
    assert config is None or config == dict(name='the same')
