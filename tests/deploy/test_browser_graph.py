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
from mmtransxnet.deploy.graphs.layers import norm_of  # noqa: E402


def exported(module):
    """A module as tools/export.py exports it, for maps of any size."""
    size = {0: 'b', 2: 'h', 3: 'w'}
    program = torch.onnx.export(
        module.eval(),
        (torch.randn(2, 4, 5, 6),),
        dynamo=True,
        opset_version=OPSET,
        input_names=['x'],
        dynamic_shapes=(size,),
    )
    return program.model_proto


def outputs(model, x):
    file = io.BytesIO()
    onnx.save(model, file)
    session = onnxruntime.InferenceSession(
        file.getvalue(), providers=['CPUExecutionProvider']
    )
    return session.run(None, {'x': x.numpy()})[0]


def axes(model):
    """The axes of all means."""
    constants = {
        value.name: onnx.numpy_helper.to_array(value).tolist()
        for value in model.graph.initializer
    }
    return [
        constants[node.input[1]]
        for node in model.graph.node
        if node.op_type == 'ReduceMean'
    ]


def test_means_are_taken_in_turn_in_the_norms_of_exported_models():
    norm = nn.GroupNorm(1, 4)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    model = exported(norm_of(norm))
    assert axes(model) == [[1, 2, 3]] * 2
    average_in_turn(model)
    onnx.checker.check_model(model, full_check=True)
    assert axes(model) == [[3], [2], [1]] * 2
    for shape in ((1, 4, 7, 3), (3, 4, 1, 1)):
        x = 3 * torch.randn(shape) + 2
        with torch.no_grad():
            want = norm(x)
        np.testing.assert_allclose(outputs(model, x), want, atol=1e-5)


class OtherMeans(nn.Module):
    """Means that are not of whole maps."""

    def forward(self, x):
        return x.mean(dim=(2, 3), keepdim=True) + x.mean(dim=1, keepdim=True)


def test_other_means_stay_as_they_are():
    model = exported(OtherMeans())
    before = model.SerializeToString()
    average_in_turn(model)
    assert model.SerializeToString() == before
