"""Two machines that do not know each other's names train and evaluate.

They are network namespaces joined by a cable, each with a name that it maps
to loopback itself, as Debian does, and with files of its own. What the second
calls ``head`` is the first, which maps this to loopback as well.
"""

import os
import pickle
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.support.processes import free_port
from tests.support.tools import command, environment, run, start

PICTURES = 'imagenet/val/*/*.jpg'
# The order of their text is not that of the machines.
ADDRESSES = ('10.77.0.9', '10.77.0.10')


class Machine:
    """One of the two.

    Args:
        number: 0 or 1.
        folder: For what it prints.
        environment: Of what it runs.
    """

    def __init__(self, number, folder, environment):
        self.number = number
        self.folder = folder
        self.environment = environment
        self.namespace = f'transxnet{os.getpid()}-{number}'
        self.name = ('first', 'second')[number]
        self.link = f'cable{number}'

    def boot(self):
        hosts = Path('/etc/netns', self.namespace, 'hosts')
        hosts.parent.mkdir(parents=True)
        hosts.write_text(
            f'127.0.0.1 localhost\n127.0.1.1 {self.name}\n'
            + ('127.0.1.1 head\n', f'{ADDRESSES[0]} head\n')[self.number]
        )
        # No name server, for which everything would wait.
        hosts.with_name('resolv.conf').write_text('')
        ip('netns', 'add', self.namespace)

    def connect(self):
        own = f'{ADDRESSES[self.number]}/24'
        ip('-n', self.namespace, 'addr', 'add', own, 'dev', self.link)
        for link in ('lo', self.link):
            ip('-n', self.namespace, 'link', 'set', link, 'up')
        route = ('route', 'add', 'default', 'dev', self.link)
        ip('-n', self.namespace, *route)

    def start(self, script, *arguments, **changes):
        """Start a script of ours as users do; return it and its output."""
        output = self.folder / f'{script}-{self.name}-{time.time_ns()}.txt'
        named = 'hostname "$0" && exec "$@"'
        words = [
            'ip', 'netns', 'exec', self.namespace,
            'unshare', '--uts', 'sh', '-c', named, self.name,
            *command(script, *arguments),
        ]  # fmt: skip
        variables = {
            **self.environment, 'NODE_RANK': str(self.number), **changes
        }  # fmt: skip
        return start(words, output, env=variables), output

    def kill(self):
        """All processes at once; the system still closes connections."""
        found = ip('netns', 'pids', self.namespace).split()
        for pid in found:
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                continue

    def remove(self):
        self.kill()
        run(['ip', 'netns', 'del', self.namespace])
        shutil.rmtree(Path('/etc/netns', self.namespace), ignore_errors=True)


def ip(*arguments):
    done = run(['ip', *arguments], seconds=60)
    if done.returncode:
        raise OSError(f'ip {" ".join(arguments)}: {done.stderr.strip()}')
    return done.stdout


@pytest.fixture(scope='module')
def machines(tmp_path_factory, digits):
    if os.geteuid() != 0 or not shutil.which('ip'):
        pytest.skip('network namespaces need root and iproute2')
    variables = environment(digits, NNODES='2', PORT=free_port())
    folder = tmp_path_factory.mktemp('machines')
    both = [Machine(n, folder, variables) for n in (0, 1)]
    try:
        try:
            for one in both:
                one.boot()
            ends = [('netns', one.namespace) for one in both]
            ip(
                'link', 'add', both[0].link, *ends[0], 'type', 'veth',
                'peer', 'name', both[1].link, *ends[1],
            )  # fmt: skip
            for one in both:
                one.connect()
        except OSError as error:  # a container with fewer rights
            pytest.skip(f'no network namespaces here: {error}')
        yield both
    finally:
        for one in both:
            one.remove()


def wait_for(path, processes):
    end = time.monotonic() + 180
    while not path.exists() and time.monotonic() < end:
        if any(process.poll() is not None for process in processes):
            return
        time.sleep(0.05)


def test_two_machines(machines, configs, tmp_path):
    """One is lost and started again; then they evaluate what they trained."""
    first, second = machines

    def train(machine):
        return machine.start(
            'dist_train.sh', configs['classifier'], 1,
            '--work-dir', tmp_path / machine.name, '--resume',
            '--cfg-options', 'model.backbone.init_cfg=None',
            'train_cfg.max_iters=30', 'train_cfg.val_begin=31',
            MASTER_ADDR='head', MAX_RESTARTS='1',
        )  # fmt: skip

    (one, log), (lost, lost_log) = train(first), train(second)
    wait_for(tmp_path / 'first/iter_4.pth', (one, lost))
    second.kill()
    lost.wait()
    assert (tmp_path / 'first/iter_4.pth').exists(), (
        log.read_text() + lost_log.read_text()
    )
    again, again_log = train(second)
    assert one.wait(180) == 0, log.read_text() + again_log.read_text()
    assert again.wait(60) == 0, again_log.read_text()
    told = log.read_text()
    assert told.count('no checkpoint in') == 1
    assert 'resumed epoch: 0, iter: ' in told
    # What is saved is with the first; the second has had it from there.
    assert (tmp_path / 'first/iter_30.pth').exists()
    assert not list((tmp_path / 'second').glob('*.pth'))

    predictions = tmp_path / 'predictions.pkl'
    copies = [tmp_path / f'{one.name}.pth' for one in machines]
    runs = []
    for machine, copy in zip(machines, copies, strict=True):
        shutil.copy(tmp_path / 'first/iter_30.pth', copy)
        runs.append(
            machine.start(
                'dist_test.sh', configs['classifier'], copy, 1,
                '--work-dir', tmp_path / 'test', '--out', predictions,
                MASTER_ADDR=ADDRESSES[0],
            )
        )  # fmt: skip
    for process, output in runs:
        assert process.wait(120) == 0, output.read_text()
    assert 'accuracy/top1' in runs[0][1].read_text()
    pictures = list(Path(first.environment['DIGITS_ROOT']).glob(PICTURES))
    assert len(pickle.loads(predictions.read_bytes())) == len(pictures) > 5
