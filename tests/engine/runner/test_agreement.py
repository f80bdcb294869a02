"""What processes agree upon before a run: three of them on two machines."""

import io
import os
import time
from contextlib import redirect_stderr
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmtransxnet.engine import UserError, checkpoint_to_load
from mmtransxnet.engine.runner import distributed
from mmtransxnet.engine.runner.distributed import decided_by_first, in_turn
from mmtransxnet.weights.mmengine_loaders import load_from_local
from tests.support.processes import free_port, run_ranks

pytestmark = pytest.mark.distribution

# The second process shares the machine of the first.
LOCAL_RANKS = (0, 1, 0)


def save(path, iteration):
    torch.save(
        dict(
            meta=dict(iter=iteration, epoch=0, seed=3, cfg=''),
            state_dict=dict(weight=torch.full((4,), float(iteration))),
            optimizer=dict(state={}),
        ),
        path,
    )


def resumed(folder, config):
    """What a process goes on from, and how often it has read a file."""
    reads = []
    read = torch.load

    def count(file, *args, **kwargs):
        if isinstance(file, Path):  # not the bytes of a tensor
            reads.append(file)
        return read(file, *args, **kwargs)

    torch.load = count
    config.work_dir = str(folder)
    path = checkpoint_to_load(config, 'auto')
    content = load_from_local(path)
    torch.load = read
    return path, content['state_dict']['weight'][0].item(), len(reads)


def attempt(work):
    """What comes of something, and what is told meanwhile."""
    told = io.StringIO()
    with redirect_stderr(told):
        try:
            work()
            outcome = 'went on'
        except (SystemExit, ValueError) as error:
            outcome = f'{type(error).__name__}: {error}'
    return outcome, told.getvalue()


def fails(rank, error):
    """Work that fails in one process."""

    def work():
        if distributed.get_rank() == rank:
            raise error

    return work


def one_of_three(rank, folder, port):
    """All that a process does; it leaves what it has seen."""
    os.environ.update(
        LOCAL_RANK=str(LOCAL_RANKS[rank]),
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=port,
    )
    # Waiting takes longer than a collective may.
    distributed.default_pg_timeout = timedelta(seconds=1)
    config = Config(
        dict(launcher='pytorch', resume=False, randomness=dict(seed=None))
    )
    distributed.prepare_launch(config)
    seen = dict(resumed=resumed(folder / f'machine{rank}', config))
    seen['seed'] = config.randomness.seed

    order = folder / 'order'

    def work():
        time.sleep(2)
        with order.open('a') as file:
            file.write(f'{rank} ')

    in_turn(work)
    seen['order'] = order.read_text().split()
    bad = UserError('weights are not there')
    seen['first fails'] = attempt(lambda: decided_by_first(fails(0, bad)))
    seen['last fails'] = attempt(lambda: in_turn(fails(2, bad)))
    broken = ValueError('a bug')
    seen['bug'] = attempt(lambda: decided_by_first(fails(0, broken)))
    distributed._close_process_group()
    return seen


@pytest.fixture(scope='module')
def seen(tmp_path_factory):
    folder = tmp_path_factory.mktemp('agreement')
    # What the others see of the folder is old, or it is not theirs at all.
    for rank, iterations in enumerate(([2, 4], [2], [])):
        (folder / f'machine{rank}').mkdir()
        for iteration in iterations:
            save(folder / f'machine{rank}/iter_{iteration}.pth', iteration)
    outcomes = run_ranks(
        one_of_three, folder, free_port(), size=3, grouped=False
    )
    return [outcome | dict(folder=folder) for outcome in outcomes]


def test_all_resume_what_the_first_has_found(seen):
    path = str(seen[0]['folder'] / 'machine0/iter_4.pth')
    assert [one['resumed'][:2] for one in seen] == [(path, 4.0)] * 3
    assert [one['seed'] for one in seen] == [3, 3, 3]


def test_a_file_is_read_once(seen):
    assert [one['resumed'][2] for one in seen] == [1, 0, 0]


def test_machines_work_in_turn_and_all_wait(seen):
    assert [one['order'] for one in seen] == [['0', '2']] * 3


@pytest.mark.parametrize('which', ['first fails', 'last fails'])
def test_all_end_with_one_line_on_each_machine(seen, which):
    line = 'error: weights are not there\n'
    ends = [one[which] for one in seen]
    assert ends == [('SystemExit: 2', told) for told in (line, '', line)]


def test_a_bug_keeps_its_traceback(seen):
    first, *others = [one['bug'] for one in seen]
    assert first[0] == 'ValueError: a bug'
    assert [outcome for outcome, _ in others] == ['SystemExit: 2'] * 2
    assert 'process 0 has failed: ValueError: a bug' in others[1][1]


def test_a_process_of_its_own_decides_for_itself(monkeypatch):
    """As under ``srun -n 4`` without a launcher."""
    for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'):
        monkeypatch.setenv(name, '3')
    done = []
    in_turn(lambda: done.append('checked'))
    assert done == ['checked']
    assert decided_by_first(lambda: 'mine') == 'mine'
    with pytest.raises(UserError, match='mine'):
        in_turn(fails(0, UserError('mine')))
