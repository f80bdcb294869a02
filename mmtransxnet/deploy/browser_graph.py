"""A graph in a form that the engine of the browser computes accurately."""

from pathlib import Path
from typing import Any

import numpy as np

# Of maps (B, C, H, W): all of a sample.
_AXES = (1, 2, 3)


def write_for_browser(source: Path, target: Path) -> None:
    """Write a model's ONNX file as the browser gets it.

    Args:
        source: The file of an exported folder.
        target: The new file.
    """
    import onnx

    model = onnx.load(source)
    average_in_turn(model)
    onnx.save(model, target)


def average_in_turn(model: Any) -> None:
    """Compute the means of whole maps over one axis after another.

    Norms of an exported model have such means
    (:class:`mmtransxnet.deploy.graphs.layers.Norm`). onnxruntime-web adds
    their float32 values, a million in a large picture, one after another, and
    the sum loses digits. Here means are over the columns, then the rows, then
    the channels.

    Args:
        model: The ``onnx.ModelProto`` of an exported model; it is changed.
    """
    from onnx import numpy_helper

    nodes = list(model.graph.node)
    constants = _constants(model.graph)
    if not any(_is_mean_of_map(node, constants) for node in nodes):
        return
    names = {}
    for axis in _AXES:
        names[axis] = f'only_axis_{axis}'
        model.graph.initializer.append(
            numpy_helper.from_array(np.array([axis]), names[axis])
        )
    del model.graph.node[:]
    for node in nodes:
        if _is_mean_of_map(node, constants):
            model.graph.node.extend(_in_turn(node, names))
        else:
            model.graph.node.append(node)
    # The engine would warn of what is not used any more.
    used = _names_used(model.graph)
    kept = [v for v in model.graph.initializer if v.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _names_used(graph: Any) -> set[str]:
    """Names that nodes and outputs read, also in bodies of loops."""
    found = {value.name for value in graph.output}
    for node in graph.node:
        found.update(node.input)
        for attribute in node.attribute:
            if attribute.HasField('g'):
                found |= _names_used(attribute.g)
    return found


def _constants(graph: Any) -> dict[str, Any]:
    """Values by name, those that may be axes."""
    from onnx import numpy_helper

    found = {
        node.output[0]: attribute.t
        for node in graph.node
        if node.op_type == 'Constant'
        for attribute in node.attribute
        if attribute.name == 'value'
    }
    found |= {value.name: value for value in graph.initializer}
    return {
        name: numpy_helper.to_array(value)
        for name, value in found.items()
        if list(value.dims) == [len(_AXES)]
    }


def _is_mean_of_map(node: Any, constants: dict[str, Any]) -> bool:
    """Whether a node is a mean over channels, rows and columns."""
    if node.op_type != 'ReduceMean' or len(node.input) < 2:
        return False
    # Without keepdims, the second axis would not be the same any more.
    if any(a.name == 'keepdims' and not a.i for a in node.attribute):
        return False
    axes = constants.get(node.input[1])
    # Maps have four dimensions: from the end, these are -3, -2 and -1.
    return axes is not None and sorted(axes % (len(_AXES) + 1)) == list(_AXES)


def _in_turn(node: Any, names: dict[int, str]) -> list[Any]:
    """Means over the last axis, the one before, the first."""
    from onnx import helper

    x, result = node.input[0], node.output[0]
    steps = [(3, f'{result}_columns'), (2, f'{result}_rows'), (1, result)]
    nodes = []
    for axis, name in steps:
        nodes.append(
            helper.make_node(
                'ReduceMean', [x, names[axis]], [name], keepdims=1
            )
        )
        x = name
    return nodes
