"""The table of formats and the process that measures a row."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmtransxnet.benchmark import format_rows
from mmtransxnet.benchmark.formats import (
    FORMS,
    NOT_MEASURED,
    formats_table,
)
from mmtransxnet.deploy import runtime
from mmtransxnet.deploy.metadata import sha256_of
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


class FakeSteps:
    """Writes what the tools would, and counts."""

    def __init__(self, folder):
        self.folder = folder
        self.done = []
        self.failing = []
        self.accuracy = 50.0

    def train(self, step, config, *options):
        self.done.append(step)
        return f'{step}.pth'

    def run(self, step, tool, *arguments):
        self.done.append(step)
        checkpoint, folder = Path(arguments[1]), Path(arguments[3])
        folder.mkdir(exist_ok=True)
        weights = {'sha256': sha256_of(checkpoint)}
        (folder / 'model.json').write_text(json.dumps({'checkpoint': weights}))
        (folder / 'model.onnx').write_bytes(checkpoint.read_bytes() + b'!')

    def test(self, step, config, path, *flags):
        self.done.append(step)
        if step in self.failing:
            raise RuntimeError('the machine went down')
        return {'accuracy/top1': self.accuracy}


def test_a_run_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    measured = {'images_per_second': 3.0, 'peak_mib': 100.0}
    monkeypatch.setattr(format_rows, '_pictures_of', lambda config: [])
    monkeypatch.setattr(format_rows, '_measured', lambda *_: measured)
    config, steps = format_rows.PRETRAINING, FakeSteps(tmp_path)
    checkpoint = tmp_path / 'a.pth'
    checkpoint.write_bytes(b'weights')

    def all_rows():
        steps.done.clear()
        rows = format_rows.Rows(steps, speed=True)
        assert rows.train('training', config) == 'training.pth'
        return [
            rows.of_pytorch(config, str(checkpoint)),
            rows.of_form(config, str(checkpoint), FORMS[0]),
        ]

    stem = 'transxnet_t_digits'
    export = f'{stem}_fp32, export'
    tests = [f'{stem}, PyTorch', f'{stem}, {FORMS[0].title}']
    steps.failing = tests[1:]
    with pytest.raises(RuntimeError):
        all_rows()
    assert steps.done == ['training', tests[0], export, tests[1]]
    steps.failing = []
    steps.accuracy = 80.0
    rows = all_rows()
    assert steps.done == [tests[1]]
    assert [row['metrics']['top-1'] for row in rows] == [50.0, 80.0]
    assert rows[1]['size_mb'] == 8e-6
    assert all_rows() == rows
    assert steps.done == []
    # Other weights: all but the training is done again.
    checkpoint.write_bytes(b'other weights')
    assert all_rows()[0]['metrics'] == {'top-1': 80.0}
    assert steps.done == [tests[0], export, tests[1]]
