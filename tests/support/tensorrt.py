"""Exported graphs against what the ONNX parser of TensorRT documents."""

from mmtransxnet.deploy.tensorrt_operators import (
    MAX_TOP_K,
    OPERATORS,
    OPSETS,
)


def assert_documented(model):
    """The parser documents all that a graph consists of."""
    (opset,) = model.opset_import
    assert opset.domain == ''
    assert opset.version in OPSETS
    nodes = list(all_nodes(model.graph))
    assert {node.op_type for node in nodes} <= OPERATORS
    assert not {node.domain for node in nodes} - {''}
    # It has uint8 for inputs and outputs only.
    readers = [node.op_type for node in nodes if 'images' in node.input]
    assert set(readers) <= {'Cast', 'Shape'}
    values = constants(model.graph)
    for node in nodes:
        if node.op_type == 'TopK':
            assert values[node.input[1]] <= MAX_TOP_K
            ordered = [a.i for a in node.attribute if a.name == 'sorted']
            assert ordered in ([], [1])


def all_nodes(graph):
    """Nodes of a graph and of those in its nodes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField('g'):
                yield from all_nodes(attribute.g)


def constants(graph):
    """Constant values by name."""
    import onnx

    tensors = {value.name: value for value in graph.initializer}
    for node in graph.node:
        if node.op_type == 'Constant':
            (attribute,) = node.attribute
            if attribute.name == 'value':
                tensors[node.output[0]] = attribute.t
    return {
        name: onnx.numpy_helper.to_array(value)
        for name, value in tensors.items()
    }
