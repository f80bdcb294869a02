"""How machines meet: in the order of NODE_RANK, or one line that says why."""

import importlib.util
import os
import socket
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.ports import free_port

PATH = ROOT / 'tools/launch.py'


@pytest.fixture(scope='module')
def module():
    spec = importlib.util.spec_from_file_location('launch', PATH)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture
def complaint(module, monkeypatch, capsys):
    """Launch in an environment; return the one line of error."""

    def launch(**environment):
        before = {'PATH': os.environ['PATH'], 'PORT': free_port()}
        monkeypatch.setattr(os, 'environ', {**before, **environment})
        monkeypatch.setattr(sys, 'argv', ['launch.py', '1', 'none.py'])
        with pytest.raises(SystemExit) as stopped:
            module.main()
        assert stopped.value.code == 1
        told = capsys.readouterr().err
        (line,) = told.splitlines()
        assert line.startswith('error: ')
        return line

    return launch


@pytest.mark.parametrize(
    ('environment', 'told'),
    [
        (dict(NNODES='2'), 'MASTER_ADDR must be the address'),
        (dict(NNODES='1:2'), 'NNODES=1:2: a whole number'),
        (dict(NODE_RANK='1'), 'NODE_RANK=1 must be below NNODES=1'),
        (dict(MAX_RESTARTS='-1'), 'MAX_RESTARTS=-1: a whole number'),
        (dict(RENDEZVOUS_SECONDS='0'), 'RENDEZVOUS_SECONDS=0'),
    ],
)
def test_settings_that_cannot_be(complaint, environment, told):
    assert told in complaint(**environment)


@pytest.mark.parametrize('host', ['127.0.0.1', '::1', 'localhost'])
def test_first_machine_does_not_answer(complaint, host):
    port = free_port()
    line = complaint(
        NNODES='2', NODE_RANK='1', MASTER_ADDR=host, PORT=port,
        RENDEZVOUS_SECONDS='1',
    )  # fmt: skip
    shown = '[::1]' if host == '::1' else host
    assert f'{shown}:{port}: no answer within 1 s' in line
    assert 'NODE_RANK=0' in line


def test_name_is_not_known(complaint):
    line = complaint(
        NNODES='2', NODE_RANK='1', MASTER_ADDR='nowhere.invalid',
        RENDEZVOUS_SECONDS='1',
    )  # fmt: skip
    assert 'MASTER_ADDR=nowhere.invalid: no way there within 1 s' in line


def test_port_is_taken(complaint):
    with socket.create_server(('', 0)) as server:
        port = server.getsockname()[1]
        line = complaint(PORT=str(port))
    assert f'127.0.0.1:{port}: ' in line
    assert 'Is the port free (PORT)' in line


def test_another_machine_never_comes(complaint):
    port = free_port()
    line = complaint(
        NNODES='2', MASTER_ADDR='127.0.0.1', PORT=port,
        RENDEZVOUS_SECONDS='1',
    )  # fmt: skip
    assert f'127.0.0.1:{port}: 2 machines have not met within 1 s' in line


@pytest.fixture
def tell(tmp_path):
    """Start tools that tell their rank on "machines"; wait for all."""
    tool = tmp_path / 'tell.py'
    tool.write_text(
        'import os, pathlib, sys\n'
        'named = [os.environ[k] for k in ("RANK", "MASTER_ADDR")]\n'
        'file = pathlib.Path(sys.argv[1], os.environ["LOCAL_ADDR"])\n'
        'file.write_text(" ".join(named))\n'
    )

    def launch(*places, **environment):
        started = [
            subprocess.Popen(
                [sys.executable, PATH, '1', tool, tmp_path],
                env={
                    **os.environ,
                    'NNODES': str(len(places)),
                    'NODE_RANK': str(rank),
                    'LOCAL_ADDR': address,
                    'MASTER_ADDR': '127.0.0.1',
                    **environment,
                },
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank, address in places
        ]
        told = [process.communicate(timeout=120)[1] for process in started]
        return [process.returncode for process in started], told

    return launch


def test_ranks_are_those_of_the_machines(tell, tmp_path):
    """torchrun alone sorts the addresses."""
    status, told = tell(
        (0, '127.0.0.9'), (1, '127.0.0.10'), PORT=free_port()
    )  # fmt: skip
    assert status == [0, 0], told
    assert (tmp_path / '127.0.0.9').read_text() == '0 127.0.0.9'
    assert (tmp_path / '127.0.0.10').read_text() == '1 127.0.0.9'


def test_two_machines_with_the_same_rank(tell):
    status, told = tell(
        (0, '127.0.0.9'), (1, '127.0.0.10'), (1, '127.0.0.11'),
        PORT=free_port(),
    )  # fmt: skip
    assert status == [1, 1, 1], told
    for text in told:
        assert text.count('NODE_RANK must differ') == 1
        assert 'Traceback' not in text
