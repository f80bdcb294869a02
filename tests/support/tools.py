"""The tools, started as users start them."""

import os
import subprocess
import sys

from tests.support.paths import ROOT


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
    """Run a program to its end in the project; its output is text."""
    return subprocess.run(
        [str(word) for word in words],
        **{'cwd': ROOT, 'env': environment(), **options},
        capture_output=True,
        text=True,
        timeout=seconds,
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
