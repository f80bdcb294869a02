"""A small built set and a way to run the tools as a user does."""

import os
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.tiny_configs import write_configs


@pytest.fixture(scope='session')
def digits(tmp_path_factory):
    """Root of a set of a few pictures."""
    from mmtransxnet.datasets import build_digits

    root = tmp_path_factory.mktemp('data') / 'digits'
    # An odd number: two processes do not share it evenly.
    build_digits(root, size=96, train_images=4, val_images=5, renderings=1)
    return root


@pytest.fixture(scope='session')
def configs(tmp_path_factory):
    """A tiny config of each task by name."""
    return write_configs(tmp_path_factory.mktemp('configs'))


@pytest.fixture
def tool(digits):
    """Run a tool as a user does; return status and what it printed.

    One thread, so that sums do not depend on how many processes there are.
    """

    def run(name, *arguments, root=digits, **environment):
        program = ['bash'] if name.endswith('.sh') else [sys.executable]
        done = subprocess.run(
            [*program, f'tools/{name}', *map(str, arguments)],
            cwd=ROOT,
            env={
                **os.environ,
                'DIGITS_ROOT': str(root),
                'PYTHON': sys.executable,
                'OMP_NUM_THREADS': '1',
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=300,
        )
        return done.returncode, done.stdout + done.stderr

    return run
