"""How machines meet: in the order of NODE_RANK, or one line that says why."""

import os
import socket

import pytest

from mmtransxnet.engine.runner.launch import launch
from tests.support.processes import free_port
from tests.support.tools import command, environment, start


@pytest.fixture
def complaint(monkeypatch, capsys):
    """Launch in an environment; return the one line of error."""

    def refused(**environment):
        before = {'PATH': os.environ['PATH'], 'PORT': free_port()}
        monkeypatch.setattr(os, 'environ', {**before, **environment})
        with pytest.raises(SystemExit) as stopped:
            launch('1', 'none.py', [])
        assert stopped.value.code == 1
        told = capsys.readouterr().err
        (line,) = told.splitlines()
        assert line.startswith('error: ')
        return line

    return refused


@pytest.mark.parametrize(
    ('environment', 'told'),
    [
        (dict(NNODES='2'), 'MASTER_ADDR must be the address'),
        (dict(NNODES='1:2'), 'NNODES=1:2: expected an integer'),
        (dict(NODE_RANK='1'), 'NODE_RANK=1 must be below NNODES=1'),
        (dict(MAX_RESTARTS='-1'), 'MAX_RESTARTS=-1: expected an integer'),
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
    assert 'MASTER_ADDR=nowhere.invalid: not reachable within 1 s' in line


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

    def launch_all(*places, **changes):
        outputs = [tmp_path / f'{address}.txt' for _, address in places]
        started = [
            start(
                command('launch.py', 1, tool, tmp_path),
                output,
                env=environment(
                    NNODES=str(len(places)),
                    NODE_RANK=str(rank),
                    LOCAL_ADDR=address,
                    MASTER_ADDR='127.0.0.1',
                    **changes,
                ),
            )
            for (rank, address), output in zip(places, outputs, strict=True)
        ]
        status = [process.wait(120) for process in started]
        return status, [output.read_text() for output in outputs]

    return launch_all


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
