"""The tools, started as users start them."""

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from tests.support.paths import ROOT

PREPARED = Path(__file__).with_name('prepared_python.py')


def command(name, *arguments):
    """The words that start a tool or another program in Python.

    Args:
        name: A file below tools/, or what Python takes in its place.
        arguments: Of the tool.
    """
    program = ['bash'] if name.endswith('.sh') else [sys.executable]
    return [*program, f'tools/{name}', *map(str, arguments)]


def environment(digits=None, **changes):
    """Variables of this process, and of what it starts.

    One thread, so that sums do not depend on how many processes there are.
    """
    more = {} if digits is None else {'DIGITS_ROOT': str(digits)}
    return {
        **os.environ,
        **more,
        'PYTHON': sys.executable,
        'OMP_NUM_THREADS': '1',
        **changes,
    }


def with_path(folder):
    """PYTHONPATH with another folder, for the modules of a user."""
    known = os.environ.get('PYTHONPATH')
    return os.pathsep.join(filter(None, (str(folder), known)))


def run(words, seconds=300, **options):
    """Run a program to its end in the project; its output is text.

    Tools run in a Python that has loaded the libraries, unless the
    environment has something that these read when they are loaded.
    """
    words = [str(word) for word in words]
    options = {'cwd': ROOT, 'env': environment(), **options}
    if _can_be_forked(words, options):
        return _prepared().run(words, seconds, **options)
    return subprocess.run(
        words, **options, capture_output=True, text=True, timeout=seconds
    )


# Variables that only programs read.
_FREE = {'DIGITS_ROOT', 'PYTHONPATH', 'PYTHON', 'OMP_NUM_THREADS'}


def _can_be_forked(words, options):
    """Whether a prepared Python does what a new one would."""
    changed = {
        key
        for key in {*os.environ, *options['env']}
        if os.environ.get(key) != options['env'].get(key)
    }
    return (
        hasattr(os, 'fork')
        and words[0] == sys.executable
        and words[1:2] != []
        and words[1].startswith('tools/')
        and options['cwd'] == ROOT
        and set(options) == {'cwd', 'env'}
        and changed <= _FREE
        and options['env'].get('OMP_NUM_THREADS') == '1'
    )


@functools.cache
def _prepared():
    """The prepared Python of this process."""
    return _PreparedPython()


class _PreparedPython:
    """See :mod:`tests.support.prepared_python`."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, PREPARED],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self._process.stdin.close)

    def run(self, words, seconds, cwd, env):
        """As :func:`subprocess.run` with captured text."""
        with (
            tempfile.NamedTemporaryFile('r', errors='replace') as out,
            tempfile.NamedTemporaryFile('r', errors='replace') as err,
        ):
            request = dict(
                words=words[1:],
                cwd=str(cwd),
                env=env,
                stdout=out.name,
                stderr=err.name,
            )
            print(json.dumps(request), file=self._process.stdin, flush=True)
            number = int(self._process.stdout.readline())
            timer = threading.Timer(seconds, os.kill, [number, signal.SIGKILL])
            timer.start()
            status = int(self._process.stdout.readline())
            expired = not timer.is_alive()
            timer.cancel()
            if expired:
                raise subprocess.TimeoutExpired(words, seconds, out.read())
            return subprocess.CompletedProcess(
                words, status, out.read(), err.read()
            )


def run_python(code, *arguments, **options):
    """Run code in a fresh interpreter, which has to succeed.

    Returns:
        What it printed, standard output first.
    """
    done = run([sys.executable, '-c', code, *arguments], **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def start(words, output, **options):
    """Start a program in the project; what it prints goes to a file."""
    with output.open('wb') as file:
        return subprocess.Popen(
            [str(word) for word in words],
            cwd=ROOT,
            stdout=file,
            stderr=file,
            **options,
        )
