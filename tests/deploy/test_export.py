"""Exports of each task: files that compute what PyTorch computes."""

import copy
import json

import numpy as np
import pytest
import torch

from mmtransxnet.deploy import convert, parity
from mmtransxnet.deploy.browser_graph import average_in_turn
from mmtransxnet.deploy.export import Request, export
from mmtransxnet.deploy.formats import FORMATS
from mmtransxnet.deploy.graphs import deploy_form
from mmtransxnet.deploy.graphs.layers import Norm
from mmtransxnet.utils.errors import UserError
from tests.support.deploy import pictures, short_config, short_model
from tests.support.tensorrt import assert_documented

for _package in ('onnx', 'onnxscript', 'onnxruntime', 'openvino'):
    pytest.importorskip(_package, reason='the extra "export" is not installed')

NAMES = {
    'classifier': 'classification/transxnet_t_digits',
    'sfpn': 'segmentation/sfpn_transxnet_t_digits',
    'upernet': 'segmentation/upernet_transxnet_t_digits',
}
META = {'classes': [str(i) for i in range(10)], 'palette': [(1, 2, 3)] * 10}


def _export(folder, name, model, reports=None, **changes):
    checkpoint = folder / 'checkpoint.pth'
    checkpoint.write_bytes(b'its checksum is stored')
    export(
        model,
        short_config(NAMES[name]),
        Request(folder / 'exported', **changes),
        checkpoint=checkpoint,
        dataset_meta=META,
        report=(reports if reports is not None else []).append,
    )
    return folder / 'exported'


@pytest.fixture(scope='module', params=list(NAMES))
def exported(request, tmp_path_factory):
    """A name, its model, its folder with both formats, and the reports.

    All tests of a model share this, as tracing takes most of the time.
    """
    name, reports = request.param, []
    model = short_model(NAMES[name])
    folder = tmp_path_factory.mktemp(name)
    return name, model, _export(folder, name, model, reports), reports


def test_both_formats_compute_what_the_model_predicts(exported):
    _, model, folder, reports = exported
    form = deploy_form(model)
    reference = form.reference(model)
    # Sizes and a batch that neither the trace nor the export's check had.
    for shape in [(3, 97, 66), (1, 32, 32)]:
        inputs = form.inputs_of(pictures(*shape).numpy())
        tensors = [torch.from_numpy(inputs[n]) for n in form.input_names]
        with torch.no_grad():
            expected = reference(*tensors)
        for row in FORMATS.values():
            run = row.writer.open_model(folder / row.file)
            # The second time, OpenVINO has a program for the size alone.
            for got in (run(inputs), run(inputs)):
                assert_equal(form.output_names, got, expected)
    assert [r.split(':')[0] for r in reports[:2]] == [
        'onnx fp32',
        'openvino fp32',
    ]


def assert_equal(names, got, expected):
    for name, value in zip(names, expected, strict=True):
        value = value.numpy()
        assert got[name].dtype == value.dtype
        if name == 'labels':
            assert (got[name] == value).mean() > 0.9999
        else:
            np.testing.assert_allclose(got[name], value, atol=1e-4)


def test_the_folder_describes_the_model(exported):
    _, model, folder, _ = exported
    assert sorted(path.name for path in folder.iterdir()) == [
        'README.md',
        'model.bin',
        'model.json',
        'model.onnx',
        'model.xml',
        'predict.py',
    ]
    content = json.loads((folder / 'model.json').read_text())
    assert content['classes'] == META['classes']
    assert content['algorithm'] == type(model).__name__
    assert content['parity']['onnx']['largest_difference']['scores'] < 1e-4
    assert len(content['parity']['openvino']['compared']) == 12
    import onnx
    import openvino

    (entry,) = onnx.load(folder / 'model.onnx').metadata_props
    stored = json.loads(entry.value)
    assert entry.key == 'mmtransxnet'
    assert stored == {
        key: value
        for key, value in content.items()
        if key not in ('files', 'parity')
    }
    read = openvino.Core().read_model(folder / 'model.xml')
    assert json.loads(read.get_rt_info(['mmtransxnet']).astype(str)) == stored


@pytest.fixture
def traced(exported, monkeypatch):
    """Exports write the graph of ``exported`` instead of tracing again."""
    _, _, folder, _ = exported
    import onnx

    monkeypatch.setattr(
        convert, 'to_onnx', lambda form: onnx.load(folder / 'model.onnx')
    )


@pytest.mark.usefixtures('traced')
def test_half_precision(exported, tmp_path, monkeypatch):
    # The weights of micro models are small.
    monkeypatch.setattr('mmtransxnet.deploy.formats.onnx._MIN_HALF_VALUES', 64)
    # The graph is that of fp32, which was compared at all sizes.
    monkeypatch.setattr(parity, 'SIZES', parity.SIZES[-1:])
    name, model, full, _ = exported
    folder = _export(tmp_path, name, model, precision='fp16')
    content = json.loads((folder / 'model.json').read_text())
    for row in FORMATS.values():
        assert content['files'][row.name]['precision'] == 'fp16'
        weights = row.weights or row.file
        before, after = ((f / weights).stat().st_size for f in (full, folder))
        assert after < before
        difference = content['parity'][row.name]['largest_difference']
        # Were nothing rounded, the difference would be that of fp32. Measured:
        # scores 4e-4 to 2e-3, and other labels in 0.15 % of the pixels.
        assert 1e-5 < difference['scores'] < 5e-3
        assert difference.get('labels', 0.0) < 5e-3


def test_constant_batch_and_size(tmp_path):
    model = short_model(NAMES['classifier'])
    changes = {'formats': ('onnx',), 'batch': 2, 'size': (64, 32)}
    folder = _export(tmp_path, 'classifier', model, **changes)
    run = FORMATS['onnx'].writer.open_model(folder / 'model.onnx')
    images = pictures(2, 64, 32)
    with torch.no_grad():
        (expected,) = deploy_form(model).reference(model)(images)
    got = run({'images': images.numpy()})['scores']
    np.testing.assert_allclose(got, expected, atol=1e-4)
    import onnx

    graph = onnx.load(folder / 'model.onnx').graph
    assert 'Scan' not in {node.op_type for node in graph.node}
    content = json.loads((folder / 'model.json').read_text())
    size = {k: content['input'][k] for k in ('batch', 'height', 'width')}
    assert size == {'batch': 2, 'height': 64, 'width': 32}


def test_operators_are_those_of_tensorrt(exported):
    import onnx

    assert_documented(onnx.load(exported[2] / 'model.onnx'))


def test_the_page_takes_all_norms_in_turn(exported):
    """What the browser's engine sums badly is in no exported graph of ours."""
    import onnx

    form = deploy_form(exported[1])
    norms = [part for part in form.modules() if isinstance(part, Norm)]
    model = onnx.load(exported[2] / 'model.onnx')
    assert whole_map_means(model) == 2 * len(norms) > 0
    average_in_turn(model)
    onnx.checker.check_model(model)
    assert whole_map_means(model) == 0
    assert 'InstanceNormalization' not in {n.op_type for n in model.graph.node}


def whole_map_means(model):
    """How many nodes average over all but the batch."""
    import onnx

    values = {
        value.name: onnx.numpy_helper.to_array(value)
        for value in model.graph.initializer
    }
    return sum(
        node.op_type == 'ReduceMean' and values[node.input[1]].size == 3
        for node in model.graph.node
    )


@pytest.mark.usefixtures('traced')
def test_a_difference_is_an_error_and_nothing_is_left(exported, tmp_path):
    name, model, *_ = exported
    # The graph normalises with other numbers, as a bug would.
    wrong = copy.deepcopy(model)
    wrong.data_preprocessor.mean += 3
    problem = 'output (labels is equal in|scores differs by)'
    expected = f'onnx differs from PyTorch at 1 x .*{problem}'
    with pytest.raises(UserError, match=expected):
        _export(tmp_path, name, wrong, formats=('onnx',))
    assert [p.name for p in tmp_path.iterdir()] == ['checkpoint.pth']
