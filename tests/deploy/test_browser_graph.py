"""The graph that the browser gets, against the exported one."""

import io

import numpy as np
import pytest
import torch
from torch import nn

onnx = pytest.importorskip('onnx', reason='pip install onnx')
onnxruntime = pytest.importorskip('onnxruntime', reason='pip install')

from mmtransxnet.deploy.browser_graph import average_in_turn  # noqa: E402
from mmtransxnet.deploy.convert import OPSET  # noqa: E402


def exported(groups):
    """A group norm as torch exports it, for maps of any size."""
    norm = nn.GroupNorm(groups, 4).eval()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    size = {0: 'b', 2: 'h', 3: 'w'}
    program = torch.onnx.export(
        norm,
        (torch.randn(2, 4, 5, 6),),
        dynamo=True,
        opset_version=OPSET,
        input_names=['x'],
        dynamic_shapes=(size,),
    )
    return norm, program.model_proto


def outputs(model, x):
    file = io.BytesIO()
    onnx.save(model, file)
    session = onnxruntime.InferenceSession(
        file.getvalue(), providers=['CPUExecutionProvider']
    )
    return session.run(None, {'x': x.numpy()})[0]


def kinds(model):
    return [node.op_type for node in model.graph.node]


def test_means_are_taken_in_turn_in_the_norms_that_torch_exports():
    norm, model = exported(1)
    assert 'InstanceNormalization' in kinds(model)
    average_in_turn(model)
    onnx.checker.check_model(model, full_check=True)
    assert 'InstanceNormalization' not in kinds(model)
    for shape in ((1, 4, 7, 3), (3, 4, 1, 1)):
        x = 3 * torch.randn(shape) + 2
        with torch.no_grad():
            want = norm(x)
        np.testing.assert_allclose(outputs(model, x), want, atol=1e-5)


def test_norms_of_several_groups_stay_as_they_are():
    _, model = exported(2)
    before = model.SerializeToString()
    average_in_turn(model)
    assert model.SerializeToString() == before
