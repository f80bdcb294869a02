"""Two processes train and evaluate as one would, started as users do."""

import os
import pickle
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from mmtransxnet.weights.reader import read_checkpoint
from tests.support.compare import assert_identical
from tests.support.processes import free_port
from tests.support.tools import command, environment, run, start, with_path

SCRATCH = 'model.backbone.init_cfg=None'
LEFT_OPEN = 'the process group is left open'


def watch_exit(folder):
    """A path for Python: processes tell of what they leave open.

    A thread of gloo that wants Python's lock while Python ends aborts the
    process.
    """
    (folder / 'sitecustomize.py').write_text(
        'import atexit, pathlib\n'
        '@atexit.register\n'
        'def tell():\n'
        '    names = pathlib.Path("/proc/self/task").glob("*/comm")\n'
        '    found = [path.read_text() for path in names]\n'
        '    if any("gloo" in name for name in found):\n'
        f'        print("{LEFT_OPEN}", found)\n'
    )
    return with_path(folder)


@pytest.mark.parametrize('task', ['classifier', 'detector', 'segmentor'])
def test_two_processes(tool, configs, tmp_path, task):
    """Trains without unused parameters; evaluates sample for sample."""
    config = configs[task]
    tool = partial(tool, PYTHONPATH=watch_exit(tmp_path))
    status, log = tool(
        'dist_train.sh', config, 2, '--work-dir', tmp_path,
        '--cfg-options', SCRATCH, PORT=free_port(),
    )  # fmt: skip
    assert status == 0, log
    # A process tells that there is another; parameters that only one of
    # them used would have stopped the second iteration.
    (file,) = tmp_path.glob('*/*.log')
    assert 'Distributed training: True' in file.read_text()
    assert ' x 2 processes' in log
    assert LEFT_OPEN not in log
    checkpoint = (tmp_path / 'last_checkpoint').read_text()
    assert read_checkpoint(checkpoint)['meta']['iter'] > 1

    predictions = {}
    common = ['--cfg-options', 'test_dataloader.batch_size=1']
    for name, script, processes in (
        ('one', 'test.py', []),
        ('two', 'dist_test.sh', [2]),
    ):
        status, log = tool(
            script, config, checkpoint, *processes, '--work-dir', tmp_path,
            '--out', tmp_path / f'{name}.pkl', *common, PORT=free_port(),
        )  # fmt: skip
        assert status == 0, log
        assert LEFT_OPEN not in log
        file = tmp_path / f'{name}.pkl'
        predictions[name] = pickle.loads(file.read_bytes())
    assert len(predictions['one']) >= 5
    assert_identical(predictions['one'], predictions['two'])


def test_all_processes_end_with_one_error(tool, configs, tmp_path):
    status, log = tool(
        'dist_train.sh', configs['detector'], 2, '--work-dir', tmp_path,
        root=tmp_path / 'none', PORT=free_port(),
    )  # fmt: skip
    assert status != 0
    assert log.count('error: the data is not as required') == 1


@pytest.mark.parametrize(
    'script',
    [
        'dist_train.sh',
        'dist_test.sh',
        'dist_infer.sh',
        'slurm_train.sh',
        'slurm_test.sh',
    ],
)
def test_scripts_say_what_they_take(tool, script):
    status, log = tool(script)
    assert status == 2
    assert f'tools/{script}' in log


@pytest.fixture
def started(configs, tmp_path, digits):
    """Start a classifier with two processes; return it and its output."""
    processes = []

    def start_training(*options, **changes):
        output = tmp_path / 'output.txt'
        words = command(
            'dist_train.sh', configs['classifier'], 2,
            '--work-dir', tmp_path, '--cfg-options', *options,
        )  # fmt: skip
        variables = environment(digits, PORT=free_port(), **changes)
        process = start(words, output, env=variables, start_new_session=True)
        processes.append(process)
        return process, output

    yield start_training
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(process, condition):
    while process.poll() is None and not condition():
        time.sleep(0.05)


def test_told_to_stop(started, tmp_path):
    """Both processes save once and end; the run goes on by --resume."""
    process, output = started(
        'train_cfg.max_iters=1000',
        'default_hooks.checkpoint.interval=1000',
        PYTHONPATH=watch_exit(tmp_path),
    )
    wait_for(process, lambda: b'[   3/' in output.read_bytes())
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) != 0
    assert b'Interrupted: saved after iteration' in output.read_bytes()
    assert LEFT_OPEN not in output.read_text()
    (saved,) = tmp_path.glob('interrupted_iter_*.pth')
    assert read_checkpoint(saved)['meta']['processes'] == 2


def test_a_process_dies(started, tmp_path):
    """torchrun starts all again; they resume without being told to."""
    process, output = started('train_cfg.max_iters=40', MAX_RESTARTS='1')
    wait_for(process, lambda: (tmp_path / 'iter_2.pth').exists())
    children = Path(f'/proc/{process.pid}/task/{process.pid}/children')
    worker = int(children.read_text().split()[-1])
    os.kill(worker, signal.SIGKILL)
    assert process.wait(120) == 0, output.read_text()
    assert 'resumed epoch: 0, iter: ' in output.read_text()
    assert (tmp_path / 'iter_40.pth').exists()


def test_slurm_queues_again(tmp_path):
    """With a stand-in for srun that is interrupted twice."""
    log = tmp_path / 'log'
    srun = tmp_path / 'srun'
    srun.write_text(
        '#!/bin/bash\n'
        f'echo $(echo "$@") >> {log}\n'
        f'[ "$(wc -l < {log})" -le 2 ] && exit 75\n'
        'exit ${LAST_STATUS:-0}\n'
    )
    srun.chmod(0o755)
    for last in ('0', '3'):
        log.unlink(missing_ok=True)
        done = run(
            command(
                'slurm_train.sh', 'gpu', 'job', 'config.py',
                '--resume', 'epoch_3.pth', '--cfg-options', 'a=1',
            ),
            env=environment(
                PATH=f'{tmp_path}:{os.environ["PATH"]}', LAST_STATUS=last
            ),
        )  # fmt: skip
        assert done.returncode == int(last)
        assert done.stderr.count('queued again') == 2
        first, *again = log.read_text().splitlines()
        assert first.endswith('--resume epoch_3.pth --cfg-options a=1')
        # What was saved since then, not the file of the beginning.
        assert all(line.endswith('a=1 --resume') for line in again)
        assert '--signal USR1@120' in first
