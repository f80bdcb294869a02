"""No NaN reaches the weights; what gave it can be looked at again."""

import copy
import math

import pytest
import torch
import torch.distributed as dist
from mmengine.registry import HOOKS

from mmtransxnet.engine import UserError
from mmtransxnet.engine.hooks.non_finite import NonFiniteHook
from mmtransxnet.engine.runner.distributed import CPUDistributedDataParallel
from mmtransxnet.engine.runner.replay import read_record, replay
from tests.support.compare import identical
from tests.support.non_finite_runs import (
    BAD,
    ITERATIONS,
    KINDS,
    batches,
    make_runner,
    scaled_runner,
)
from tests.support.processes import run_ranks

WRAPPERS = dict(
    plain={},
    clipped=dict(clip_grad=dict(max_norm=1.0)),
    bfloat16=dict(type='MixedPrecisionOptimWrapper'),
)


def wrapper_of(name):
    return copy.deepcopy(WRAPPERS[name])


@pytest.mark.distribution
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('wrapper', WRAPPERS)
def test_the_run_stops_before_the_step(tmp_path, kind, wrapper):
    runner, witness = make_runner(tmp_path, kind, wrapper=wrapper_of(wrapper))
    path = tmp_path / 'non_finite_iter_3_rank0.pth'
    with pytest.raises(UserError, match='iteration 3: the loss is') as error:
        runner.train()
    assert str(path) in str(error.value)
    assert '\n' not in str(error.value)
    assert identical(witness.state(runner), witness.seen[BAD - 1])
    record = read_record(path)
    assert record['iteration'] == BAD
    assert record['losses'].keys() == {'loss', 'loss_a', 'loss_b'}
    assert identical(record['weights'], witness.seen[BAD - 1]['model'])
    if kind == 'gradient':
        assert record['gradients'] == ['linear.weight']
        assert 'linear.weight' in str(error.value)


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('wrapper', WRAPPERS)
def test_a_skipped_step_leaves_no_trace(tmp_path, kind, wrapper, by_epoch):
    runner, witness = make_runner(
        tmp_path, kind, by_epoch, wrapper_of(wrapper), policy='skip'
    )
    runner.train()
    assert runner.iter == ITERATIONS
    for number in range(1, ITERATIONS + 1):
        stood_still = identical(witness.seen[number], witness.seen[number - 1])
        assert stood_still == (number == BAD), number
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert log.count('the step is skipped, number 1 of at most 10') == 1
    assert len(list(tmp_path.glob('non_finite_*'))) == 1


def test_the_limit_stops(tmp_path):
    runner, witness = make_runner(
        tmp_path, bad=(2, 4, 5), policy='skip', limit=2
    )
    with pytest.raises(UserError, match=r'iteration 5: .* 2 steps were skip'):
        runner.train()
    assert identical(witness.state(runner), witness.seen[4])
    names = sorted(path.name for path in tmp_path.glob('non_finite_*'))
    assert names == [f'non_finite_iter_{n}_rank0.pth' for n in (2, 5)]


def test_large_gradients_are_not_bad(tmp_path):
    runner, _ = make_runner(tmp_path, 'large_gradient')
    runner.train()
    assert not list(tmp_path.glob('non_finite_*'))


def test_good_runs_are_not_changed(tmp_path):
    """The hook draws no random numbers and touches nothing."""
    seen = []
    for name, hook in (('with', {}), ('without', dict(policy='skip'))):
        runner, witness = make_runner(tmp_path / name, None, **hook)
        if name == 'without':
            runner._hooks = [
                one
                for one in runner.hooks
                if not isinstance(one, NonFiniteHook)
            ]
        runner.train()
        seen.append(witness.seen)
        assert not list((tmp_path / name).glob('non_finite_*'))
    assert identical(*seen)


@pytest.mark.parametrize('bad', [3, 4])
def test_accumulation_skips_the_whole_step(tmp_path, bad):
    """Wherever in it the bad batch is."""
    runner, witness = make_runner(
        tmp_path, bad=(bad,), wrapper=dict(accumulative_counts=2),
        policy='skip',
    )  # fmt: skip
    runner.train()
    moved = [
        not torch.equal(
            one['model']['linear.weight'], other['model']['linear.weight']
        )
        for one, other in zip(witness.seen[1:], witness.seen[:-1], strict=True)
    ]
    assert moved == [False, True, False, False, False, True]
    hook = next(h for h in runner.hooks if isinstance(h, NonFiniteHook))
    assert hook.skipped == 1


def test_what_loss_scaling_skips_is_no_error(tmp_path):
    runner, _ = scaled_runner(tmp_path, 'gradient', 8.0)
    runner.train()
    assert runner.optim_wrapper.loss_scaler.get_scale() == 4
    assert not list(tmp_path.glob('non_finite_*'))


@pytest.mark.parametrize(('kind', 'scale'), [('nan', 8.0), ('gradient', 1.0)])
def test_what_loss_scaling_cannot_mend_is_one(tmp_path, kind, scale):
    """A bad loss; gradients that are infinite without scaling."""
    runner, witness = scaled_runner(tmp_path, kind, scale)
    with pytest.raises(UserError, match='iteration 3'):
        runner.train()
    assert identical(witness.state(runner), witness.seen[BAD - 1])


def test_a_compiled_train_step(tmp_path):
    runner, witness = make_runner(
        tmp_path, options=dict(compile=dict(backend='eager'))
    )
    with pytest.raises(UserError, match='iteration 3'):
        runner.train()
    assert identical(witness.state(runner), witness.seen[BAD - 1])


@pytest.mark.parametrize(
    'wrong', [dict(policy='warn'), dict(limit=-1), dict(limit='ten')]
)
def test_wrong_settings(wrong):
    with pytest.raises(ValueError, match='expected'):
        NonFiniteHook(**wrong)


def one_of_two(rank, folder, policy, kind):
    """A process; the batch of the second one is bad."""
    runner, witness = make_runner(
        str(folder), kind if rank else None,
        rank=rank, processes=2, policy=policy,
    )  # fmt: skip
    runner.model = CPUDistributedDataParallel(runner.model)
    told = ''
    try:
        runner.train()
    except UserError as error:
        told = str(error)
    state = witness.state(runner)
    last = witness.seen[min(BAD, runner.iter)]
    still = identical(witness.seen[BAD - 1], last)
    return dict(told=told, still=still, iteration=runner.iter, state=state)


@pytest.mark.parametrize(
    ('policy', 'kind', 'savers'),
    [('error', 'nan', [1]), ('skip', 'gradient', [0, 1])],
)
def test_two_processes_decide_alike(tmp_path, policy, kind, savers):
    outcomes = run_ranks(one_of_two, tmp_path, policy, kind)
    names = sorted(path.name for path in tmp_path.glob('non_finite_*'))
    assert names == [f'non_finite_iter_3_rank{rank}.pth' for rank in savers]
    for rank, outcome in enumerate(outcomes):
        assert outcome['still']
        assert bool(outcome['told']) == (policy == 'error')
        assert outcome['iteration'] == (2 if policy == 'error' else 6)
        if policy == 'error':
            other = 'that of another process' in outcome['told']
            assert other == (rank == 0)
    weights = [
        one['state']['model']['module.linear.weight'] for one in outcomes
    ]
    assert torch.equal(*weights)


# ------------------------------------------------------------------ replay
def stopped(folder, kind='gradient', **options):
    """The file and the config of a run that was stopped."""
    runner, _ = make_runner(folder, kind, **options)
    with pytest.raises(UserError):
        runner.train()
    return next(folder.glob('non_finite_*')), runner.cfg


@pytest.mark.parametrize('by_epoch', [True, False])
def test_a_replay_gives_the_same(tmp_path, by_epoch):
    """Dropout included, whatever was drawn since."""
    file, config = stopped(tmp_path, by_epoch=by_epoch)
    content = read_record(file)
    torch.rand(3)
    outcome = replay(content, config)
    assert outcome.losses == content['losses']
    assert outcome.gradients == ['linear.weight']
    assert outcome.culprit is None
    assert outcome.bad
    config.train_dataloader.dataset = batches(None)
    assert not replay(content, config).bad


@pytest.mark.parametrize('bad', [3, 4])
def test_a_replay_of_accumulated_steps(tmp_path, bad):
    file, config = stopped(
        tmp_path, bad=(bad,), wrapper=dict(accumulative_counts=2)
    )
    content = read_record(file)
    outcome = replay(content, config)
    assert content['iteration'] == bad
    assert outcome.losses == content['losses']
    assert outcome.bad


def test_a_replay_of_scaled_losses(tmp_path):
    runner, _ = scaled_runner(tmp_path, 'nan', 8.0)
    with pytest.raises(UserError):
        runner.train()
    content = read_record(next(tmp_path.glob('non_finite_*')))
    assert content['precision']['loss_scale'] == 8
    assert replay(content, runner.cfg).bad


def test_a_replay_in_place_of_another_process(tmp_path):
    """The second of two, in one process, with its part of the batches."""
    run_ranks(one_of_two, tmp_path, 'error', 'gradient')
    content = read_record(tmp_path / f'non_finite_iter_{BAD}_rank1.pth')
    assert (content['rank'], content['processes']) == (1, 2)
    runner, _ = make_runner(tmp_path, 'gradient', rank=1, processes=2)
    outcome = replay(content, runner.cfg)
    assert outcome.losses == content['losses']
    assert outcome.gradients == ['linear.weight']
    assert not dist.is_initialized()


def test_a_replay_names_the_first_module(tmp_path):
    file, config = stopped(tmp_path, 'nan')
    content = read_record(file)
    outcome = replay(content, config)
    assert outcome.inputs == ['inputs.0']
    assert outcome.culprit.kind == 'BaseDataPreprocessor'
    assert outcome.culprit.bad_inputs
    config.train_dataloader.dataset = batches(None)
    content['weights']['norm.weight'][1] = math.inf
    outcome = replay(content, config)
    assert outcome.weights == ['norm.weight']
    assert (outcome.culprit.name, outcome.culprit.bad_inputs) == (
        'norm',
        False,
    )


def test_a_loop_whose_batches_cannot_be_drawn_again(tmp_path):
    """What is known of the weights is said all the same."""
    file, config = stopped(tmp_path)
    content = read_record(file)
    content['weights']['norm.weight'][1] = math.inf
    config.train_cfg.type = 'EpochBasedTrainLoop'
    with pytest.raises(UserError, match=r'BasedTrainLoop .* norm\.weight'):
        replay(content, config)


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        (
            dict(format='mmtransxnet bad numbers 1'),
            'is not a file of a non-fin',
        ),
        (dict(weights={}), 'the weights do not fit the model'),
    ],
)
def test_unsuitable_files(tmp_path, values, message):
    file, config = stopped(tmp_path)
    torch.save({**torch.load(file, weights_only=True), **values}, file)
    with pytest.raises(UserError, match=message):
        replay(read_record(file), config)


def test_the_former_name_of_the_hook():
    assert HOOKS.get('BadNumbersHook') is NonFiniteHook
