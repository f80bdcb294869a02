"""The export of a checkpoint, as users start it."""

import json

import pytest
import torch

from tests.support.models import fill_by_name
from tests.support.suite_configs import build, load

for _package in ('onnx', 'onnxscript', 'onnxruntime', 'openvino', 'nncf'):
    pytest.importorskip(_package, reason='the extra "export" is not installed')


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory, configs):
    path = tmp_path_factory.mktemp('checkpoint') / 'classifier.pth'
    model = fill_by_name(build(load(configs['classifier'])))
    meta = {'dataset_meta': {'classes': [str(i) for i in range(10)]}}
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, path)
    return path


def test_int8(tool, configs, checkpoint, tmp_path):
    status, text = tool(
        'export.py', configs['classifier'], checkpoint,
        '--out', tmp_path / 'exported', '--precision', 'int8',
        '--format', 'openvino', '--size', 38, 38,
        '--allow-loss',
    )  # fmt: skip
    assert status == 0, text
    assert 'points of accuracy/top1' in text
    content = json.loads((tmp_path / 'exported/model.json').read_text())
    assert content['classes'][3] == '3'
    assert content['files']['openvino']['precision'] == 'int8'
    import openvino

    model = openvino.Core().read_model(tmp_path / 'exported/model.xml')
    quantised = {
        op.get_type_name()
        for op in model.get_ops()
        for source in op.input_values()
        if source.get_node().get_type_name() == 'FakeQuantize'
    }
    assert 'Convolution' in quantised
    # Attention and pooling stay precise.
    assert 'MatMul' not in quantised


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--precision', 'fp8'], '--precision fp8: expected one of fp32'),
        (['--format', 'tflite'], '--format tflite: expected some of onnx'),
        (['--size', '20', '20'], 'argument --size: expected at least 32'),
        (['--calibrate', 'photos'], '--calibrate is for --precision int8'),
    ],
)
def test_bad_flags_are_one_line(
    tool, configs, checkpoint, tmp_path, flags, message
):
    out = tmp_path / 'exported'
    status, text = tool(
        'export.py', configs['classifier'], checkpoint, '--out', out, *flags
    )
    assert status == 2
    assert message in text
    assert 'Traceback' not in text
    assert not out.exists()
