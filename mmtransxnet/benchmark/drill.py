"""Training runs that are killed, resumed and compared with undisturbed ones.

A small model is trained undisturbed. Then the same run is started, killed at
random moments and resumed until it finishes; this is repeated until the
number of kills is reached. Every final checkpoint must equal the undisturbed
one bit by bit (weights, averaged weights, optimizer, schedules), and every
loss logged on the way must be the one of that iteration.
"""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmtransxnet.datasets import build_digits
from mmtransxnet.engine.hooks.preemption import STATUS
from mmtransxnet.engine.runner.resume import (
    checkpoints_of,
    read_training_state,
)
from mmtransxnet.utils.atomic_write import TEMPORARY
from mmtransxnet.utils.paths import ROOT

# A classifier with averaged weights, mixed batches and a worker process.
CONFIG = """
_base_ = '{root}/configs/classification/transxnet_t_digits.py'
model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            layers=[1, 1, 1, 1],
            embed_dims=[16, 32, 48, 64],
            kernel_size=[7, 7, 7, 7],
            num_groups=[2, 2, 3, 4],
            sr_ratio=[8, 4, 2, 1],
            num_heads=[1, 2, 3, 4],
            mlp_ratios=[4, 4, 3, 2]),
        drop_path_rate=0.1),
    head=dict(in_channels=64),
    train_cfg=dict(augments=dict(type='Mixup', alpha=0.8)))
train_dataloader = dict(
    batch_size=4, num_workers=1, dataset=dict(indices=40))
val_dataloader = dict(
    batch_size=20,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(indices=40))
{loop}
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(
        {unit}, max_keep_ckpts=2, save_best='accuracy/top1', rule='greater'))
custom_hooks = [
    dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.1)]
randomness = dict(seed=1, deterministic=True)
"""
LOOPS = dict(
    epoch=dict(
        loop="train_cfg = dict(_delete_=True, type='ResumableEpochLoop', "
        'max_epochs=4, val_interval=1)\n'
        'log_processor = dict(by_epoch=True)',
        unit='by_epoch=True, interval=1',
    ),
    iteration=dict(
        loop='train_cfg = dict(max_iters=40, val_interval=20)',
        unit='by_epoch=False, interval=5',
    ),
)

# Duration of a write in seconds, long enough to be hit by a kill.
SLOW_WRITE = 0.3
SLOW = f"""
import os
import time

flush = os.fsync


def slow_flush(descriptor):
    time.sleep({SLOW_WRITE})
    flush(descriptor)


os.fsync = slow_flush
"""

KINDS = {
    'SIGKILL': 'killed at a random moment',
    'SIGKILL in a write': 'killed while a checkpoint is being written',
    'SIGTERM': 'asked to stop',
    'SIGUSR1': 'asked to stop, as Slurm does before the time is over',
    'disk full': 'no checkpoint fits any more',
    'damaged checkpoint': 'killed, and the newest checkpoint then damaged',
}


@dataclass
class Kill:
    """One interruption.

    Attributes:
        run: Number of the run.
        kind: A key of KINDS.
        loop: ``'epoch'`` or ``'iteration'``.
        processes: Number of training processes.
        status: Exit status of the run; negative, the signal.
        last: Last iteration that it logged.
        inside: Whether a write was interrupted: it left an unfinished file.
    """

    run: int
    kind: str
    loop: str
    processes: int
    status: int
    last: int
    inside: bool


class Drill:
    """Trains and kills.

    Args:
        folder: Output folder.
        seed: Seed of the times and kinds of kills.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.data = folder / 'digits'
        self.seconds: dict[tuple[str, int], float] = {}
        if not self.data.exists():
            build_digits(
                self.data,
                size=96,
                train_images=2,
                val_images=2,
                renderings=1,
            )
        (folder / 'slow').mkdir(exist_ok=True)
        # Python imports it automatically at startup.
        (folder / 'slow/sitecustomize.py').write_text(SLOW)
        for loop, text in LOOPS.items():
            path = folder / f'{loop}.py'
            path.write_text(CONFIG.format(root=ROOT, **text))

    # ------------------------------------------------------------- running
    def start(
        self, work_dir: Path, loop: str, processes: int, limit: int | None
    ) -> subprocess.Popen:
        """Start or resume a run; ``limit`` bounds its files, in bytes."""
        flags = ['--work-dir', str(work_dir)]
        if checkpoints_of(work_dir):
            flags.append('--resume')
        config = str(self.folder / f'{loop}.py')
        command = [sys.executable, str(ROOT / 'tools/train.py'), config]
        if processes > 1:
            script = str(ROOT / 'tools/dist_train.sh')
            command = ['bash', script, config, str(processes)]
        environment = {
            **os.environ,
            'DIGITS_ROOT': str(self.data),
            'PYTHON': sys.executable,
            'PYTHONPATH': os.pathsep.join(
                [str(self.folder / 'slow'), os.environ.get('PYTHONPATH', '')]
            ),
            'PORT': str(_free_port()),
            # As many as in an undisturbed run, because sums depend on it.
            'OMP_NUM_THREADS': '1',
        }
        with (work_dir / 'output.txt').open('ab') as output:
            return subprocess.Popen(
                [*command, *flags],
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_file_limit(limit) if limit else None,
            )

    def undisturbed(self, loop: str, processes: int) -> Path:
        """Folder of a run that is not killed."""
        work_dir = self.folder / f'undisturbed_{loop}_{processes}'
        if (loop, processes) in self.seconds:
            return work_dir
        shutil.rmtree(work_dir, ignore_errors=True)
        work_dir.mkdir(parents=True)
        begin = time.monotonic()
        status = self.start(work_dir, loop, processes, None).wait()
        self.seconds[loop, processes] = time.monotonic() - begin
        if status:
            sys.exit(_tail(work_dir))
        return work_dir

    # ------------------------------------------------------------- killing
    def kill(
        self, run: int, work_dir: Path, loop: str, processes: int
    ) -> Kill | None:
        """Start or resume once and interrupt; None if the run finished."""
        kind = self.random.choice(list(KINDS))
        have = [p for p in checkpoints_of(work_dir) if _is_complete(p)]
        if kind == 'disk full' and not have:
            kind = 'SIGKILL in a write'
        if kind == 'damaged checkpoint' and len(have) < 2:
            kind = 'SIGKILL'
        limit = _half_of(have[0]) if kind == 'disk full' else None
        process = self.start(work_dir, loop, processes, limit)
        self._strike(process, kind, work_dir, self.seconds[loop, processes])
        status = process.wait()
        _kill_all(process.pid)
        inside = any(work_dir.glob(f'*{TEMPORARY}'))
        if status == 0:
            return None
        if kind == 'damaged checkpoint':
            self._damage(work_dir)
        self._check_status(kind, status, processes, work_dir)
        last = max(_losses(work_dir), default=0)
        return Kill(run, kind, loop, processes, status, last, inside)

    def _strike(
        self,
        process: subprocess.Popen,
        kind: str,
        work_dir: Path,
        seconds: float,
    ) -> None:
        """Wait for the chosen moment, then send the signal."""
        if kind == 'disk full':
            return  # it stops by itself
        if kind == 'SIGKILL in a write':
            # Not always the first write.
            for _ in range(self.random.choice([0, 1, 2])):
                _wait_until(process, lambda: _is_writing(work_dir), True)
                if _wait_until(process, lambda: _is_writing(work_dir), False):
                    break
            _wait_until(process, lambda: _is_writing(work_dir), True)
            time.sleep(self.random.uniform(0, SLOW_WRITE / 2))
            _signal(process, signal.SIGKILL)
            return
        polite = kind in ('SIGTERM', 'SIGUSR1')
        if polite:  # without handlers, a signal would kill it
            begun = len(_losses(work_dir))
            _wait_until(process, lambda: len(_losses(work_dir)) > begun, True)
        wait = self.random.uniform(0, seconds * (0.1 if polite else 1))
        end = time.monotonic() + wait
        _wait_until(process, lambda: time.monotonic() > end, True)
        number = getattr(signal, kind) if polite else signal.SIGKILL
        _signal(process, number)

    def _check_status(
        self, kind: str, status: int, processes: int, work_dir: Path
    ) -> None:
        """Check the exit status; torchrun has its own."""
        polite = kind in ('SIGTERM', 'SIGUSR1') and processes == 1
        expected = {STATUS} if polite else None
        if kind == 'disk full' and processes == 1:
            expected = {2}
        if expected and status not in expected:
            sys.exit(
                f'{kind}: exit status {status} instead of {expected}\n'
                f'{_tail(work_dir)}'
            )

    def _damage(self, work_dir: Path) -> None:
        """Cut the newest checkpoint short, empty it or flip a bit of it."""
        checkpoints = [p for p in checkpoints_of(work_dir) if _is_complete(p)]
        if len(checkpoints) < 2:
            return  # nothing to resume from would be left
        content = bytearray(checkpoints[0].read_bytes())
        how = self.random.choice(['cut', 'empty', 'flip', 'last_checkpoint'])
        if how == 'last_checkpoint':
            (work_dir / 'last_checkpoint').write_bytes(b'')
            return
        if how == 'cut':
            del content[self.random.randrange(len(content)) :]
        elif how == 'empty':
            content.clear()
        else:
            content[len(content) // 2] ^= 1
        then = checkpoints[0].stat().st_mtime_ns
        checkpoints[0].write_bytes(content)
        os.utime(checkpoints[0], ns=(then, then))

    # ------------------------------------------------------------- the end
    def run(self, number: int, max_kills: int) -> tuple[list[Kill], list[str]]:
        """Run with kills until it finishes.

        Args:
            number: Number of the run.
            max_kills: Maximum number of kills.

        Returns:
            The kills, and the differences from an undisturbed run.
        """
        loop = self.random.choice(list(LOOPS))
        processes = self.random.choice([1, 1, 2])
        undisturbed = self.undisturbed(loop, processes)
        work_dir = self.folder / f'run_{number}'
        shutil.rmtree(work_dir, ignore_errors=True)
        work_dir.mkdir(parents=True)
        kills: list[Kill] = []
        through = False
        while len(kills) < min(max_kills, 8) and not through:
            kill = self.kill(number, work_dir, loop, processes)
            through = kill is None
            kills += [kill] if kill else []
        if not through and self.start(work_dir, loop, processes, None).wait():
            return kills, [f'run {number} did not end:\n{_tail(work_dir)}']
        problems = differences(undisturbed, work_dir)
        return kills, [f'run {number}: {problem}' for problem in problems]


def differences(undisturbed: Path, killed: Path) -> list[str]:
    """List the differences between two finished runs."""
    problems = []
    expected_state, state = map(_final, (undisturbed, killed))
    for part in ('state_dict', 'ema_state_dict', 'optimizer'):
        problems += _unequal(expected_state[part], state[part], part)
    problems += _unequal(
        expected_state['param_schedulers'],
        state['param_schedulers'],
        'param_schedulers',
    )
    expected, logged = _losses(undisturbed), _losses(killed)
    if set(expected) != set(logged):
        problems.append('other iterations were logged')
    problems += [
        f'loss of iteration {step}: {sorted(losses)}, not {expected[step]}'
        for step, losses in logged.items()
        if losses != expected.get(step)
    ]
    left = [path.name for path in killed.glob(f'*{TEMPORARY}')]
    return problems + [f'{name} is left over' for name in left]


def _unequal(first: Any, second: Any, path: str) -> list[str]:
    """Names of the leaves of second states that differ in any bit."""
    if isinstance(first, dict) and isinstance(second, dict):
        keys = sorted({*first, *second}, key=str)
        return [
            name
            for key in keys
            for name in _unequal(
                first.get(key), second.get(key), f'{path}.{key}'
            )
        ]
    if isinstance(first, list) and isinstance(second, list):
        return _unequal(dict(enumerate(first)), dict(enumerate(second)), path)
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return [] if torch.equal(first, second) else [f'{path} differs']
    return [] if first == second else [f'{path} differs']


def _final(work_dir: Path) -> dict[str, Any]:
    return read_training_state(checkpoints_of(work_dir)[0])


def _losses(work_dir: Path) -> dict[int, set[float]]:
    """All values logged for each iteration, in all attempts."""
    losses: dict[int, set[float]] = {}
    for path in work_dir.glob('*/vis_data/scalars.json'):
        for line in path.read_text().splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # killed while it was written
                continue
            if 'loss' in entry:
                # In an epoch-based log, iterations are numbered within the
                # epoch.
                step = entry.get('step', entry.get('iter'))
                losses.setdefault(step, set()).add(entry['loss'])
    return losses


def _is_complete(path: Path) -> bool:
    try:
        read_training_state(path)
    except ValueError:
        return False
    return True


def _half_of(path: Path) -> int:
    return path.stat().st_size // 2


def _is_writing(work_dir: Path) -> bool:
    return any(work_dir.glob(f'*.pth{TEMPORARY}'))


def _wait_until(
    process: subprocess.Popen, condition: Callable[[], bool], value: bool
) -> bool:
    """Wait for a condition; return whether the process ended before."""
    while process.poll() is None:
        if condition() is value:
            return False
        time.sleep(0.005)
    return True


def _signal(process: subprocess.Popen, number: int) -> None:
    """Send SIGKILL to all processes of a run, other signals to the first."""
    if number == signal.SIGKILL:
        _kill_all(process.pid)
    elif process.poll() is None:
        process.send_signal(number)


def _kill_all(group: int) -> None:
    """Kill the processes of a session that has been started here."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _file_limit(size: int) -> Callable[[], None]:
    """A quota: files above it cannot be written, as on a full disk."""
    import resource  # POSIX only

    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return server.getsockname()[1]


def _tail(work_dir: Path) -> str:
    text = (work_dir / 'output.txt').read_text(errors='replace')
    return '\n'.join(text.splitlines()[-30:])
