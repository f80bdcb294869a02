"""What hooks do on a GPU: the device decides, the host hears of it later.

Here a CPU is the device, and the host hears of it as late.
"""

import os
import signal
from contextlib import contextmanager

import pytest
import torch
import torch.distributed as dist
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper

from mmtransxnet.engine import UserError
from mmtransxnet.engine.hooks.non_finite import NonFiniteHook
from mmtransxnet.engine.hooks.preemption import STATUS, PreemptionHook
from mmtransxnet.engine.runner import on_device, step_flags
from mmtransxnet.engine.runner.on_device import Snapshot
from mmtransxnet.engine.runner.replay import read_record, replay
from tests.support.compare import identical
from tests.support.non_finite_runs import (
    BAD,
    ITERATIONS,
    KINDS,
    make_runner,
    scaled_runner,
)
from tests.support.processes import run_ranks

FUSED = dict(optimizer=dict(type='AdamW', lr=0.1, fused=True))


@pytest.fixture
def late(monkeypatch):
    """As on a GPU."""
    monkeypatch.setattr(step_flags, 'LAG', {'cpu': 1})


@pytest.mark.usefixtures('late')
@pytest.mark.parametrize('kind', KINDS)
def test_the_run_stops_one_iteration_later(tmp_path, kind):
    """Nothing of the bad one, or of the one after it, is left."""
    runner, witness = make_runner(tmp_path, kind, wrapper=FUSED)
    with pytest.raises(UserError, match='iteration 3: the loss is') as error:
        runner.train()
    assert runner.iter == BAD
    assert identical(witness.state(runner), witness.seen[BAD - 1])
    path = tmp_path / 'non_finite_iter_3_rank0.pth'
    assert str(path) in str(error.value)
    record = read_record(path)
    assert record['iteration'] == BAD
    assert identical(record['weights'], witness.seen[BAD - 1]['model'])
    assert record['losses'].keys() == {'loss', 'loss_a', 'loss_b'}
    outcome = replay(record, runner.cfg)
    assert outcome.bad
    if kind == 'gradient':
        assert outcome.losses == record['losses']
        assert 'gradients are not finite' in str(error.value)


@pytest.mark.usefixtures('late')
@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('kind', KINDS)
def test_a_fused_optimizer_skips_without_a_trace(tmp_path, kind, by_epoch):
    runner, witness = make_runner(
        tmp_path, kind, by_epoch, FUSED, policy='skip'
    )
    runner.train()
    for number in range(1, ITERATIONS + 1):
        stood_still = identical(witness.seen[number], witness.seen[number - 1])
        assert stood_still == (number == BAD), number
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert log.count('iteration 3: the loss is') == 1
    assert log.count('the step is skipped, number 1 of at most 10') == 1


@pytest.mark.usefixtures('late')
@pytest.mark.parametrize('kind', KINDS)
def test_other_optimizers_see_no_gradient(tmp_path, kind):
    """The weights move by what the steps before left, and stay numbers."""
    runner, witness = make_runner(tmp_path, kind, policy='skip')
    runner.train()
    before, after = (witness.seen[n]['model'] for n in (BAD - 1, BAD))
    for name in ('norm.running_mean', 'norm.num_batches_tracked'):
        assert torch.equal(after[name], before[name])
    moments = [
        witness.seen[n]['optimizer'][0]['exp_avg'] for n in (BAD - 1, BAD)
    ]
    torch.testing.assert_close(moments[1], 0.9 * moments[0])
    values = witness.seen[-1]['model'].values()
    assert all(value.isfinite().all() for value in values)
    assert not identical(witness.seen[-1], witness.seen[-2])


@pytest.mark.parametrize('lag', [0, 1])
def test_statistics_of_good_batches_are_kept(tmp_path, monkeypatch, lag):
    """Of all but the bad one, whenever the host hears of that."""
    monkeypatch.setattr(step_flags, 'LAG', {'cpu': lag})
    runner, witness = make_runner(tmp_path, policy='skip', wrapper=FUSED)
    runner.train()
    counts = [
        int(one['model']['norm.num_batches_tracked']) for one in witness.seen
    ]
    assert counts == [0, 1, 2, 2, 3, 4, 5]


@pytest.mark.usefixtures('late')
@pytest.mark.parametrize('momentum', [0, 0.9])
def test_fused_sgd_skips_its_first_step(tmp_path, momentum):
    optimizer = dict(type='SGD', lr=0.1, momentum=momentum, fused=True)
    runner, witness = make_runner(
        tmp_path, bad=(1,), policy='skip', wrapper=dict(optimizer=optimizer)
    )
    runner.train()
    first, second = (witness.seen[n]['model'] for n in (0, 1))
    assert torch.equal(first['linear.weight'], second['linear.weight'])
    assert witness.seen[-1]['model']['linear.weight'].abs().max() < 10


@pytest.mark.usefixtures('late')
@pytest.mark.parametrize('kind', KINDS)
def test_the_loss_scaler_skips_a_bad_loss(tmp_path, kind):
    """Also one whose gradients are finite; bad gradients are its own."""
    runner, witness = scaled_runner(tmp_path, kind, 8.0, policy='skip')
    runner.train()
    for number in range(1, ITERATIONS + 1):
        one, other = (
            witness.seen[n]['model']['linear.weight']
            for n in (number, number - 1)
        )
        assert torch.equal(one, other) == (number == BAD), number
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert log.count('the step is skipped') == (kind != 'gradient')


@pytest.mark.usefixtures('late')
def test_no_checkpoint_of_a_bad_iteration(tmp_path):
    """The host waits for it where a checkpoint is due."""
    hooks = dict(
        checkpoint=dict(type='SafeCheckpointHook', by_epoch=False, interval=1),
        bad_numbers=dict(type='NonFiniteHook'),
    )
    runner, _ = make_runner(tmp_path, hooks=hooks)
    with pytest.raises(UserError, match=r'iteration 3: .* gradients of zero'):
        runner.train()
    names = sorted(path.name for path in tmp_path.glob('iter_*.pth'))
    assert names == ['iter_1.pth', 'iter_2.pth']


@pytest.mark.parametrize('lag', [0, 1])
def test_several_backward_passes_of_an_iteration(tmp_path, monkeypatch, lag):
    """The right iteration is told; the graph may be used again."""
    monkeypatch.setattr(step_flags, 'LAG', {'cpu': lag})
    runner, _ = make_runner(tmp_path, wrapper=FUSED)

    def train_step(self, data, optim_wrapper):
        data = self.data_preprocessor(data, True)
        loss, log = self.parse_losses(self._run_forward(data, mode='loss'))
        optim_wrapper.backward(loss, retain_graph=True)
        optim_wrapper.backward(loss.reshape(1) * 2)
        optim_wrapper.step()
        optim_wrapper.zero_grad()
        return log

    monkeypatch.setattr(type(runner.model), 'train_step', train_step)
    with pytest.raises(UserError, match='iteration 3'):
        runner.train()
    assert [p.name for p in tmp_path.glob('non_finite_*')] == [
        'non_finite_iter_3_rank0.pth'
    ]


def test_odd_tensors():
    """Expanded ones cannot be written to; complex and sparse ones can."""
    expanded = torch.zeros(1).expand(3)
    number = torch.tensor([1 + 2j], dtype=torch.complex128)
    snapshot = Snapshot([expanded, number])
    number.fill_(complex('nan'))
    snapshot.restore_where(torch.ones(()))
    assert number.item() == 1 + 2j
    parameter = torch.nn.Parameter(torch.zeros(4, 2))
    parameter.grad = torch.sparse_coo_tensor(
        [[1]], [[float('nan'), 1.0]], (4, 2)
    )
    assert on_device.are_not_finite([parameter.grad], torch.zeros(()))
    wrapper = OptimWrapper(torch.optim.SparseAdam([parameter]))
    with on_device.step_unless(torch.ones(()), wrapper, [parameter]):
        assert not parameter.grad._values().any()


@pytest.mark.usefixtures('late')
@pytest.mark.parametrize('policy', ['error', 'skip'])
def test_the_last_iteration_is_told_of(tmp_path, policy):
    runner, witness = make_runner(
        tmp_path, bad=(ITERATIONS,), wrapper=FUSED, policy=policy
    )
    if policy == 'error':
        with pytest.raises(UserError, match='iteration 6'):
            runner.train()
    else:
        runner.train()
        log = next(tmp_path.glob('*/*.log')).read_text()
        assert log.count('the step is skipped, number 1 of') == 1
    assert identical(witness.state(runner), witness.seen[ITERATIONS - 1])


@pytest.mark.usefixtures('late')
def test_the_limit_stops(tmp_path):
    runner, _ = make_runner(
        tmp_path, bad=(2, 4, 5), wrapper=FUSED, policy='skip', limit=2
    )
    with pytest.raises(UserError, match=r'iteration 5: .* 2 steps were skip'):
        runner.train()
    names = sorted(path.name for path in tmp_path.glob('non_finite_*'))
    assert names == [f'non_finite_iter_{n}_rank0.pth' for n in (2, 5)]


@pytest.mark.usefixtures('late')
@pytest.mark.parametrize('bad', [3, 4])
def test_accumulation_skips_the_whole_step(tmp_path, bad):
    runner, witness = make_runner(
        tmp_path,
        bad=(bad,),
        wrapper=dict(accumulative_counts=2, **FUSED),
        policy='skip',
    )
    runner.train()
    moved = [
        not torch.equal(
            one['model']['linear.weight'], other['model']['linear.weight']
        )
        for one, other in zip(witness.seen[1:], witness.seen[:-1], strict=True)
    ]
    assert moved == [False, True, False, False, False, True]


@pytest.mark.usefixtures('late')
def test_good_runs_are_not_changed(tmp_path):
    seen = []
    for name in ('with', 'without'):
        runner, witness = make_runner(tmp_path / name, None)
        if name == 'without':
            without(runner, NonFiniteHook)
        runner.train()
        seen.append(witness.seen)
    assert identical(*seen)


def without(runner, *kinds):
    runner._hooks = [h for h in runner.hooks if not isinstance(h, kinds)]


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.int64])
def test_restore_where(dtype):
    tensors = [torch.arange(4).to(dtype), torch.tensor(7).to(dtype)]
    before = [tensor.clone() for tensor in tensors]
    snapshot = Snapshot(tensors)
    for flag, expected in ((0, 1), (1, 0)):
        for tensor in tensors:
            tensor.add_(1)
            if dtype.is_floating_point and flag:
                tensor.fill_(float('nan'))
        snapshot.restore_where(torch.tensor(float(flag)))
        for tensor, value in zip(tensors, before, strict=True):
            assert torch.equal(tensor, value + expected)


def test_half_precision_gradients_do_not_overflow():
    like = torch.zeros(())
    many = [torch.full((4096,), 100.0, dtype=torch.float16)]
    assert not on_device.are_not_finite(many, like)
    many.append(torch.tensor([float('inf')], dtype=torch.float16))
    assert on_device.are_not_finite(many, like)
    assert not on_device.are_not_finite([], like)


# -------------------------------------------------- who waits, and how often
READS = ('item', 'tolist', 'cpu', 'numpy', '__bool__', '__float__', '__int__')


HOOKS_OF_A_RUN = dict(
    checkpoint=dict(type='SafeCheckpointHook', interval=100),
    bad_numbers=dict(type='NonFiniteHook'),
    preemption=dict(type='PreemptionHook'),
)


class Counting(Hook):
    """Counts what reads values, from the first to the last of all hooks."""

    def __init__(self, reads):
        self.reads, self.steps, self.counting = reads, [], False

    def before_train_iter(self, runner, *args, **kwargs):
        self.begin = len(self.reads)


class CountingEnd(Hook):
    def __init__(self, start):
        self.start = start

    def after_train_iter(self, runner, *args, **kwargs):
        self.start.steps.append(self.start.reads[self.start.begin :])


@contextmanager
def reads_of_tensors():
    """Where values of tensors are read."""
    reads = []
    with pytest.MonkeyPatch.context() as patch:
        for name in READS:
            method = getattr(torch.Tensor, name)

            def spy(self, *args, _name=name, _method=method, **kwargs):
                reads.append(_name)
                return _method(self, *args, **kwargs)

            patch.setattr(torch.Tensor, name, spy)
        yield reads


def reads_of_run(folder, *kinds):
    """What is read in each iteration, without hooks of some kinds."""
    runner, _ = make_runner(folder, None, hooks=HOOKS_OF_A_RUN)
    without(runner, *kinds)
    with reads_of_tensors() as reads:
        start = Counting(reads)
        runner._hooks.insert(0, start)
        runner._hooks.append(CountingEnd(start))
        runner.train()
    assert len(start.steps) == ITERATIONS
    return start.steps


@pytest.mark.parametrize('lag', [0, 1])
def test_hooks_read_no_values_in_a_step_that_is_well(
    tmp_path, monkeypatch, lag
):
    """mmengine's own logging reads the losses, with and without them."""
    monkeypatch.setattr(step_flags, 'LAG', {'cpu': lag})
    with_hooks = reads_of_run(tmp_path / 'with')
    alone = reads_of_run(tmp_path / 'alone', NonFiniteHook, PreemptionHook)
    assert with_hooks == alone


def one_of_two(rank, folder, lag):
    """A process that counts collectives; the second is told to stop."""
    step_flags.LAG = {'cpu': lag}
    runner, _ = make_runner(
        f'{folder}/{rank}',
        None,
        rank=rank,
        processes=2,
        hooks=HOOKS_OF_A_RUN,
    )
    called = []
    for name in (
        'all_reduce',
        'all_gather',
        'broadcast',
        'barrier',
        'all_gather_object',
        'broadcast_object_list',
        'all_gather_into_tensor',
    ):
        original = getattr(dist, name)

        def spy(*args, _name=name, _original=original, **kwargs):
            called.append(_name)
            return _original(*args, **kwargs)

        setattr(dist, name, spy)
    counts = []

    class Watch(Hook):
        priority = 'HIGHEST'

        def before_train_iter(self, runner, *args, **kwargs):
            called.clear()
            if rank == 1 and runner.iter == 3:
                os.kill(os.getpid(), signal.SIGTERM)

        def after_train_iter(self, runner, *args, **kwargs):
            counts.append(list(called))

    runner.register_hook(Watch(), 'HIGHEST')
    status = None
    try:
        runner.train()
    except SystemExit as error:
        status = error.code
    return dict(counts=counts, status=status, iteration=runner.iter + 1)


@pytest.mark.parametrize('lag', [0, 1])
def test_one_exchange_in_each_step(tmp_path, lag):
    """For all hooks; and all processes stop after the same iteration."""
    for outcome in run_ranks(one_of_two, tmp_path, lag):
        assert outcome['status'] == STATUS
        assert outcome['iteration'] == 4 + lag
        assert outcome['counts'] == [['all_reduce']] * (4 + lag)


def test_preemption_exchanges_where_nobody_else_does(tmp_path, monkeypatch):
    """Without NonFiniteHook, there is still one exchange a step."""
    monkeypatch.setattr(step_flags, 'get_world_size', lambda: 2)
    exchanged = []
    monkeypatch.setattr(
        dist, 'all_reduce', lambda flags, op: exchanged.append(flags.tolist())
    )
    runner, _ = make_runner(
        tmp_path,
        None,
        hooks=dict(
            checkpoint=dict(type='SafeCheckpointHook', interval=100),
            preemption=dict(type='PreemptionHook'),
        ),
    )
    without(runner, NonFiniteHook)
    runner.train()
    assert exchanged == [[0.0, 0.0, 0.0]] * ITERATIONS


def test_runs_do_not_share_flags(tmp_path):
    runners = [make_runner(tmp_path / name, None)[0] for name in 'ab']
    flags = [step_flags.flags_of(runner) for runner in runners]
    assert flags[0] is not flags[1]
    assert step_flags.flags_of(runners[0]) is flags[0]
