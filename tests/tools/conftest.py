"""A small digits set, and the tools run on it."""

import os
import subprocess
import sys

import pytest
from helpers import ROOT


@pytest.fixture(scope='session')
def digits(tmp_path_factory):
    """Root of a set of a few pictures."""
    from mmtransxnet.datasets import build_digits

    root = tmp_path_factory.mktemp('data') / 'digits'
    build_digits(root, size=96, train_images=4, val_images=4, renderings=1)
    return root


@pytest.fixture
def tool(digits):
    """Run a tool as a user does; return status and what it printed."""

    def run(name, *arguments, root=digits):
        done = subprocess.run(
            [sys.executable, f'tools/{name}', *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, 'DIGITS_ROOT': str(root)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        return done.returncode, done.stdout + done.stderr

    return run
