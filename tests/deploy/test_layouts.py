"""Model repositories, against the fields that the servers document."""

import json
import re

import pytest

from mmtransxnet.deploy.layouts import write_layout
from mmtransxnet.utils.errors import UserError
from tests.support.exported import write_exported

TASKS = ('classification', 'detection', 'segmentation')
THRESHOLDS = {'score': 0.3, 'max_per_image': 2}

# Parameters of a model in OpenVINO Model Server's documentation.
OVMS_FIELDS = {
    'name',
    'base_path',
    'shape',
    'layout',
    'batch_size',
    'mean',
    'scale',
    'color_format',
    'precision',
    'model_version_policy',
    'plugin_config',
    'nireq',
    'target_device',
    'stateful',
    'idle_sequence_cleanup',
    'max_sequence_number',
    'low_latency_transformation',
    'allow_cache',
    'metrics_enable',
    'metrics_list',
}

# Fields of Triton's ModelConfig, ModelInput and ModelOutput.
TRITON_FIELDS = {
    'name',
    'backend',
    'default_model_filename',
    'max_batch_size',
    'input',
    'output',
    'data_type',
    'dims',
    'reshape',
    'shape',
    'dynamic_batching',
    'max_queue_delay_microseconds',
    'instance_group',
    'kind',
}


def export(folder, task, *formats, **changes):
    changes.setdefault('thresholds', THRESHOLDS)
    return write_exported(folder, task, formats or ('onnx',), **changes)


@pytest.mark.parametrize('task', TASKS)
def test_ovms(tmp_path, task):
    out = tmp_path / 'models'
    for name in ('first', 'second'):
        folder = export(tmp_path / name, task, 'onnx', 'openvino')
        write_layout(folder, out, 'ovms')
    content = json.loads((out / 'config.json').read_text())
    configs = [entry['config'] for entry in content['model_config_list']]
    assert [config['name'] for config in configs] == ['first', 'second']
    for config in configs:
        assert set(config) <= OVMS_FIELDS
        version = out / config['base_path'] / '1'
        files = sorted(path.name for path in version.iterdir())
        assert files == ['model.bin', 'model.xml']
        # Other numbers would be versions.
        others = [p.name for p in version.parent.iterdir() if p != version]
        assert others == ['model.json']


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('form', ['onnx', 'openvino'])
def test_triton(tmp_path, task, form):
    out = tmp_path / 'models'
    write_layout(export(tmp_path / 'x', task, form), out, 'triton')
    text = (out / 'x/config.pbtxt').read_text()
    assert set(re.findall(r'(\w+)\s*(?:[:{]|\[ ?[\n{])', text)) <= (
        TRITON_FIELDS
    )
    for pair in ('{}', '[]'):
        assert text.count(pair[0]) == text.count(pair[1])
    assert 'name: "x"' in text
    backend = {'onnx': 'onnxruntime', 'openvino': 'openvino'}[form]
    assert f'backend: "{backend}"' in text
    (model,) = re.findall(r'default_model_filename: "(.*)"', text)
    assert (out / 'x/1' / model).is_file()
    batched = task != 'segmentation'
    assert ('dynamic_batching' in text) == batched
    assert f'max_batch_size: {8 if batched else 0}\n' in text


def described(text):
    """Name, type and shape of all tensors of a config.pbtxt."""
    pattern = r'name: "(\w+)"\s+data_type: (\w+)\s+dims: \[ (.*?) \]'
    return {
        name: (kind, [int(n) for n in dims.split(', ')])
        for name, kind, dims in re.findall(pattern, text)
    }


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('batch', [None, 2])
def test_triton_describes_the_graph(tmp_path, task, batch):
    """Types and ranks are those of the ONNX model."""
    import onnx

    folder = export(tmp_path / 'x', task, batch=batch, size=(64, 64))
    write_layout(folder, tmp_path / 'models', 'triton')
    text = (tmp_path / 'models/x/config.pbtxt').read_text()
    tensors = described(text)
    graph = onnx.load(folder / 'model.onnx').graph
    values = [*graph.input, *graph.output]
    assert [value.name for value in values] == list(tensors)
    kinds = {1: 'TYPE_FP32', 2: 'TYPE_UINT8', 7: 'TYPE_INT64'}
    batched = 'dynamic_batching' in text
    for value in values:
        kind, dims = tensors[value.name]
        tensor = value.type.tensor_type
        assert kind == kinds[tensor.elem_type]
        known = [dim.dim_value or -1 for dim in tensor.shape.dim]
        if batched:
            known = known[1:] or [1]  # one value: reshaped
        assert len(dims) == len(known)
        for mine, theirs in zip(dims, known, strict=True):
            assert mine == theirs or -1 in (mine, theirs)


def test_errors(tmp_path):
    folder = export(tmp_path / 'x', 'classification')
    with pytest.raises(UserError, match='expected one of ovms, triton'):
        write_layout(folder, tmp_path / 'models', 'torchserve')
    write_layout(folder, tmp_path / 'models', 'ovms')
    with pytest.raises(UserError, match='exists: remove it'):
        write_layout(folder, tmp_path / 'models', 'ovms')
    folder = export(tmp_path / 'a b', 'classification')
    with pytest.raises(UserError, match='rename the folder'):
        write_layout(folder, tmp_path / 'models', 'ovms')


@pytest.mark.parametrize('content', ['{', '[]', '{"model_config_list": 1}'])
def test_a_damaged_list_leaves_the_repository_as_it_was(tmp_path, content):
    folder = export(tmp_path / 'exported', 'classification')
    models = tmp_path / 'models'
    models.mkdir()
    (models / 'config.json').write_text(content)
    with pytest.raises(UserError, match=r'config\.json'):
        write_layout(folder, models, 'ovms')
    assert [path.name for path in models.iterdir()] == ['config.json']
    assert (models / 'config.json').read_text() == content
