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
        '--allow-loss', '--layout', 'ovms',
    )  # fmt: skip
    assert status == 0, text
    assert 'points of accuracy/top1' in text
    content = json.loads((tmp_path / 'exported/model.json').read_text())
    assert content['classes'][3] == '3'
    assert content['files']['openvino']['precision'] == 'int8'
    repository = tmp_path / 'models'
    (entry,) = json.loads((repository / 'config.json').read_text())[
        'model_config_list'
    ]
    assert entry['config']['base_path'] == 'exported'
    for name in ('model.xml', 'model.bin'):
        copy = repository / 'exported/1' / name
        assert copy.read_bytes() == (tmp_path / 'exported' / name).read_bytes()
    import openvino

    model = openvino.Core().read_model(tmp_path / 'exported/model.xml')
    quantised = {
        op.get_type_name()
        for op in model.get_ops()
        for source in op.input_values()
        if source.get_node().get_type_name() == 'FakeQuantize'
    }
    assert quantised == {'Convolution', 'GroupConvolution'}


def test_half_precision_for_triton(tool, configs, checkpoint, tmp_path):
    out, repository = tmp_path / 'digits', tmp_path / 'repository'
    status, text = tool(
        'export.py', configs['classifier'], checkpoint,
        '--out', out, '--precision', 'fp16', '--format', 'onnx',
        '--batch', 2, '--size', 38, 38,
        '--layout', 'triton', '--repository', repository,
    )  # fmt: skip
    assert status == 0, text
    assert 'onnx fp16: equal to PyTorch' in text
    content = json.loads((out / 'model.json').read_text())
    assert content['files']['onnx']['precision'] == 'fp16'
    settings = (repository / 'digits/config.pbtxt').read_text()
    assert 'dims: [ 2, 38, 38, 3 ]' in settings
    stored = (repository / 'digits/1/model.onnx').read_bytes()
    assert stored == (out / 'model.onnx').read_bytes()


def test_a_model_of_the_repository_is_kept(
    tool, configs, checkpoint, tmp_path
):
    (tmp_path / 'models/exported').mkdir(parents=True)
    status, text = tool(
        'export.py', configs['classifier'], checkpoint,
        '--out', tmp_path / 'exported', '--layout', 'ovms',
    )  # fmt: skip
    assert status == 2
    assert 'models/exported exists: remove it' in text
    # It is noticed before the export.
    assert not (tmp_path / 'exported').exists()


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--precision', 'fp8'], '--precision fp8: expected one of fp32'),
        (['--format', 'tflite'], '--format tflite: expected some of onnx'),
        (['--size', '20', '20'], 'argument --size: expected at least 32'),
        (['--batch', '0'], '0 is not a number of images: give 1 or more'),
        (['--batch', 'two'], '--batch: two is not a number of images'),
        (['--repository', 'models'], '--repository is for --layout'),
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
