"""The table of formats and the process that measures a row."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from mmtransxnet.benchmark.formats import (
    FORMS,
    NOT_MEASURED,
    formats_table,
)
from mmtransxnet.deploy import runtime
from mmtransxnet.utils.errors import UserError
from tests.support.exported import write_exported
from tests.support.paths import ROOT
from tests.support.tools import run

WORKER = ROOT / 'tools/benchmark/format_worker.py'


def write(folder, content):
    (folder / 'formats').mkdir(exist_ok=True)
    (folder / 'formats/a.json').write_text(json.dumps(content))


def test_table(tmp_path):
    assert formats_table(tmp_path) == NOT_MEASURED
    result = {
        'form': 'OpenVINO int8',
        'metrics': {'box AP': 61.25, 'mask AP': 50.0},
        'size_mb': 12.34,
        'images_per_second': 45.67,
        'peak_mib': 321.4,
    }
    machine = {'device': 'a CPU', 'threads': 2}
    models = [{'name': 'maskrcnn', 'results': [result]}]
    write(tmp_path, dict(version='1', machine=machine, models=models))
    table = formats_table(tmp_path)
    assert table.startswith('a CPU, threads: 2; version 1\n\n| model |')
    row = '| maskrcnn | OpenVINO int8 | box AP 61.2, mask AP 50.0 | 12.3 |'
    assert f'{row} 45.7 | 321 |\n' in table
    # A busy machine says nothing about speed.
    del result['images_per_second']
    write(tmp_path, dict(version='1', machine=machine, models=models))
    assert f'{row} not measured | 321 |\n' in formats_table(tmp_path)
    write(tmp_path, dict(version='1'))
    with pytest.raises(UserError, match='is not a file of tools'):
        formats_table(tmp_path)


def test_forms_exist():
    assert {form.engine for form in FORMS} == set(runtime.ENGINES)
    assert len({form.title for form in FORMS}) == len(FORMS)


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_worker_measures_without_pytorch(tmp_path):
    folder = write_exported(tmp_path / 'x', 'detection')
    path = tmp_path / 'a.png'
    Image.fromarray(np.full((40, 50, 3), 99, np.uint8)).save(path)
    code = (
        'import sys, runpy\n'
        'for name in ("torch", "mmengine", "mmtransxnet", "cv2"):\n'
        '    sys.modules[name] = None\n'
        f'runpy.run_path({str(WORKER)!r}, run_name="__main__")'
    )
    words = [sys.executable, '-c', code, 'exported', folder, 'onnxruntime']
    done = run([*words, '0', path])
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result['images_per_second'] > 1
    assert 10 < result['peak_mib'] < 2000
