"""Micro models of the page, and the page as its tool serves it."""

import signal
import subprocess
from types import SimpleNamespace

import pytest
from PIL import Image

from tests.support.corrupt_files import upright
from tests.support.exported import write_exported
from tests.support.paths import ROOT
from tests.support.tiny_configs import write_checkpoints, write_configs
from tests.support.tools import command, environment


@pytest.fixture(scope='session')
def files(tmp_path_factory):
    """Configs with checkpoints, an exported folder, pictures."""
    folder = tmp_path_factory.mktemp('web')
    configs = write_configs(folder)
    write_checkpoints(folder, configs)
    write_exported(folder / 'exported', 'detection')
    Image.fromarray(upright()).save(folder / 'picture.png')
    (folder / 'broken.png').write_bytes(b'no picture')
    return folder


def pair(files, name):
    """The arguments for a config and its checkpoint."""
    return [str(files / f'{name}.py'), str(files / f'{name}.pth')]


@pytest.fixture(scope='session')
def server(files, digits):
    """The page of a detector and an exported folder."""
    temporary = files / 'temporary'
    temporary.mkdir()
    process = subprocess.Popen(
        command(
            'web_demo.py', *pair(files, 'detector'), files / 'exported',
            '--port', '0', '--max-mib', '1', '--field-size', '64',
            '--examples', files / 'picture.png',
        ),
        cwd=ROOT, env=environment(digits, TMPDIR=str(temporary)),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith('Open '):
            break
    else:
        pytest.fail(''.join(lines))
    yield SimpleNamespace(url=line.split()[1].rstrip(';'))
    process.send_signal(signal.SIGINT)
    try:
        output, _ = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert 'KeyboardInterrupt' not in output
    assert not list(temporary.glob('mmtransxnet-web-*'))
    assert not (temporary / 'gradio').exists()
