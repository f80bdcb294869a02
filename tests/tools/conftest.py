"""Tiny configs and a way to run the tools as a user does."""

import pytest

from tests.support.tiny_configs import write_configs
from tests.support.tools import command, environment, run


@pytest.fixture(scope='session')
def configs(tmp_path_factory):
    """A tiny config of each task by name."""
    return write_configs(tmp_path_factory.mktemp('configs'))


@pytest.fixture
def tool(digits):
    """Run a tool as a user does; return status and what it printed."""

    def run_tool(name, *arguments, root=digits, **changes):
        done = run(command(name, *arguments), env=environment(root, **changes))
        return done.returncode, done.stdout + done.stderr

    return run_tool
