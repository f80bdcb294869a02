"""Deploy heads in ONNX Runtime and OpenVINO against torch."""

import functools

import numpy as np
import pytest
import torch

from mmtransxnet.deploy import tensorrt_operators
from tests.support.detectors import (
    CONFIGS,
    collate,
    deploy,
    detector,
    detector_config,
    pictures,
)

onnx = pytest.importorskip('onnx', reason='pip install onnx')
pytest.importorskip('onnxscript', reason='pip install onnxscript')

SIZES = [[(96, 128)], [(64, 64)], [(96, 128), (70, 150)]]


@functools.cache
def exported(name):
    """The deploy form and its ONNX model."""
    from mmtransxnet.deploy.convert import to_onnx

    form = deploy(detector(detector_config(name)))
    return form, to_onnx(form)


def run_onnxruntime(model):
    runtime = pytest.importorskip(
        'onnxruntime', reason='pip install onnxruntime'
    )
    session = runtime.InferenceSession(model.SerializeToString())
    names = [i.name for i in session.get_inputs()]
    return lambda *inputs: session.run(
        None, {n: i.numpy() for n, i in zip(names, inputs, strict=True)}
    )


def run_openvino(model):
    openvino = pytest.importorskip('openvino', reason='pip install openvino')
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()),
        'CPU',
        {'INFERENCE_PRECISION_HINT': 'f32'},
    )

    def run(*inputs):
        out = compiled([i.numpy() for i in inputs])
        return [np.array(out[i]) for i in range(len(compiled.outputs))]

    return run


@pytest.mark.parametrize('engine', [run_onnxruntime, run_openvino])
@pytest.mark.parametrize('name', CONFIGS)
def test_engines_find_what_torch_finds(name, engine):
    form, model = exported(name)
    run = engine(model)
    for sizes in SIZES:
        inputs = collate(pictures(sizes))
        with torch.no_grad():
            expected = form(*inputs)
        for got, want in zip(run(*inputs), expected, strict=True):
            assert got.shape == want.shape
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-3)


@pytest.mark.parametrize('name', CONFIGS)
def test_operators_are_those_of_tensorrt(name):
    _, model = exported(name)
    assert {i.domain for i in model.opset_import} <= {''}
    assert model.opset_import[0].version in tensorrt_operators.OPSETS
    nodes = list(all_nodes(model.graph))
    used = {node.op_type for node in nodes}
    assert used <= tensorrt_operators.OPERATORS
    assert not {node.domain for node in nodes} - {''}


def all_nodes(graph):
    """Nodes of a graph and of those in its nodes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField('g'):
                yield from all_nodes(attribute.g)
