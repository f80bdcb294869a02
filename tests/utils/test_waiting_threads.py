"""Waiting threads sleep where there are more of them than idle cores."""

import os
import sys
from pathlib import Path

import pytest

from mmtransxnet.utils import waiting_threads
from mmtransxnet.utils.waiting_threads import POLICY, sleeping_if_busy
from tests.support.tools import environment, run_python

# More threads than any machine has cores: busy whatever else runs.
TOO_MANY = '100000'


class Machine:
    """Two cores of four, with a part of the time idle."""

    def __init__(self, monkeypatch):
        self.idle = 1.0
        self.looks = 0
        self.patch = monkeypatch
        monkeypatch.delitem(sys.modules, 'torch')  # as in a new program
        for name in (
            *waiting_threads._SETTINGS_OF_THE_USER,
            'OMP_NUM_THREADS',
            'LOCAL_WORLD_SIZE',
        ):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(
            os, 'sched_getaffinity', lambda pid: {1, 3}, raising=False
        )
        monkeypatch.setattr(waiting_threads, '_DURATION', 0)
        monkeypatch.setattr(
            Path, 'read_text', lambda path: self.statistics(path)
        )

    def statistics(self, path):
        """/proc/stat a second later; the cores of others never rest."""
        assert str(path) == '/proc/stat'
        self.looks += 1
        time = 1000 * self.looks
        idle = round(time * self.idle)
        mine = f'{time - idle} 0 0 {idle // 2} {idle - idle // 2} 0 0 0 9 9'
        others = f'{time} 0 0 0 0 0 0 0 9 9'
        return (
            f'cpu  {others}\n'
            f'cpu0 {others}\ncpu1 {mine}\ncpu2 {others}\ncpu3 {mine}\n'
            'intr 1 2 3\n'
        )

    def policy(self, **variables):
        """The policy of libraries that are loaded now."""
        for name, value in variables.items():
            self.patch.setenv(name, value)
        with sleeping_if_busy():
            return os.environ.get(POLICY)


@pytest.fixture
def machine(monkeypatch):
    return Machine(monkeypatch)


@pytest.mark.parametrize(
    ('idle', 'policy'),
    [(1.0, None), (0.9, None), (0.5, 'PASSIVE'), (0.0, 'PASSIVE')],
)
def test_follows_the_load(machine, idle, policy):
    machine.idle = idle

    assert machine.policy() == policy
    assert machine.looks == 2
    # Programs that this one starts look for themselves.
    assert POLICY not in os.environ


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        (POLICY, 'ACTIVE'),
        ('GOMP_SPINCOUNT', '1000'),
        ('KMP_BLOCKTIME', '0'),
    ],
)
def test_variables_of_the_user_win(machine, name, value):
    machine.idle = 0

    policy = machine.policy(**{name: value})

    assert policy == (value if name == POLICY else None)
    assert os.environ[name] == value


def test_one_thread_waits_for_none(machine):
    machine.idle = 0

    assert machine.policy(OMP_NUM_THREADS='1') is None
    assert not machine.looks


def test_fewer_threads_than_idle_cores(machine):
    machine.patch.setattr(waiting_threads, '_idle_cores', lambda cores: 4)

    assert machine.policy(OMP_NUM_THREADS='4,1') is None
    assert machine.policy(OMP_NUM_THREADS='6') == 'PASSIVE'


def test_processes_of_a_run_share_the_cores(machine):
    assert machine.policy(LOCAL_WORLD_SIZE='2') == 'PASSIVE'
    assert not machine.looks


def test_processes_of_a_run_that_fit(machine):
    machine.patch.setattr(os, 'sched_getaffinity', lambda pid: set(range(8)))
    fits = dict(LOCAL_WORLD_SIZE='2', OMP_NUM_THREADS='4')

    assert machine.policy(**fits) is None


def test_too_late_once_torch_is_loaded(machine):
    machine.idle = 0
    machine.patch.setitem(sys.modules, 'torch', None)

    assert machine.policy() is None


def test_systems_without_proc(machine):
    def missing(path):
        raise FileNotFoundError(path)

    machine.patch.setattr(Path, 'read_text', missing)
    assert machine.policy() is None

    machine.patch.delattr(os, 'sched_getaffinity')
    assert machine.policy() is None


# Stops a program where it imports torch.
AT_TORCH = f"""
import os, runpy, sys


class AtTorch:
    def find_spec(self, name, *rest):
        if name == 'torch':
            print(os.environ.get({POLICY!r}))
            sys.exit()


sys.meta_path.insert(0, AtTorch())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def environment_of_a_user(**changes):
    """Without what make sets for the tests."""
    variables = environment(**changes)
    for name in waiting_threads._SETTINGS_OF_THE_USER:
        variables.pop(name, None)
    return variables


@pytest.mark.parametrize('tool', ['train', 'test', 'infer', 'replay'])
@pytest.mark.parametrize(
    ('threads', 'policy'), [(TOO_MANY, 'PASSIVE'), ('1', 'None')]
)
def test_tools_choose_before_they_import_torch(tool, threads, policy):
    variables = environment_of_a_user(OMP_NUM_THREADS=threads)

    output = run_python(AT_TORCH, f'tools/{tool}.py', env=variables)

    assert output.split() == [policy]


def test_importing_the_package_leaves_the_environment():
    code = 'import os, mmtransxnet; print(dict(os.environ))'
    variables = environment_of_a_user(OMP_NUM_THREADS=TOO_MANY)

    assert POLICY not in run_python(code, env=variables)


def test_a_library_may_change_the_environment(monkeypatch):
    monkeypatch.setattr(waiting_threads, '_sleep', lambda: True)
    with sleeping_if_busy():
        assert os.environ.pop(POLICY) == 'PASSIVE'
    assert POLICY not in os.environ
