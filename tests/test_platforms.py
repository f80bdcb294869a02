"""The package on systems that lack what POSIX has."""

import pytest

from tests.support.tools import run_python

pytestmark = pytest.mark.distribution

# What Windows does not have, taken away before anything is imported.
WITHOUT_POSIX = """
import os, signal
for module, name in (
    (signal, 'SIGUSR1'), (signal, 'SIGUSR2'), (signal, 'SIGHUP'),
    (signal, 'SIGALRM'), (os, 'O_DIRECTORY'), (os, 'geteuid'),
):
    delattr(module, name)

open_file = os.open


def open_no_folder(path, *flags, **options):
    if os.path.isdir(path):
        raise PermissionError(13, 'Permission denied', str(path))
    return open_file(path, *flags, **options)


os.open = open_no_folder

import builtins
import_any = builtins.__import__


def import_portable(name, globals=None, *rest, **options):
    importer = (globals or {}).get('__name__', '')
    if importer.startswith('mmtransxnet') and name in POSIX:
        raise ModuleNotFoundError(f'No module named {name!r}', name=name)
    return import_any(name, globals, *rest, **options)


POSIX = 'fcntl', 'resource', 'pwd', 'grp', 'termios', 'pty', 'syslog'
builtins.__import__ = import_portable
"""

IMPORT_ALL = """
import importlib, pkgutil
import mmtransxnet
for module in pkgutil.walk_packages(mmtransxnet.__path__, 'mmtransxnet.'):
    importlib.import_module(module.name)
"""

# A checkpoint that a run's hook writes, and one step of listening.
SAVE = """
import tempfile, torch
from pathlib import Path
from mmengine.runner import Runner
from mmengine.model import BaseModel


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, x, mode):
        return dict(loss=self.layer(x).sum())


with tempfile.TemporaryDirectory() as folder:
    Runner(
        model=Model(),
        work_dir=folder,
        train_dataloader=dict(
            dataset=[torch.zeros(1)],
            sampler=dict(type='DefaultSampler'),
            batch_size=1,
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(
            checkpoint=dict(type='SafeCheckpointHook', interval=1),
            preemption=dict(type='PreemptionHook'),
        ),
        log_level='ERROR',
    ).train()
    saved = torch.load(Path(folder, 'epoch_1.pth'), weights_only=False)
    print('saved', *saved['state_dict'])
"""


def test_works_without_posix():
    printed = run_python(WITHOUT_POSIX + IMPORT_ALL + SAVE)
    assert 'saved layer.weight layer.bias' in printed.splitlines()
