"""A graph in a form that the engine of the browser computes accurately."""

from pathlib import Path
from typing import Any

import numpy as np

_DOMAIN = 'mmtransxnet'
_NAME = 'normalise_map'

# Of maps (B, C, H, W).
_FUNCTION = f"""
<opset_import: ["" : OPSET], domain: "{_DOMAIN}">
{_NAME} <epsilon> (x, scale, bias) => (y) {{
    columns = Constant<value_ints = [3]>()
    rows = Constant<value_ints = [2]>()
    channels = Constant<value_ints = [1]>()
    mean_w = ReduceMean(x, columns)
    mean_hw = ReduceMean(mean_w, rows)
    mean = ReduceMean(mean_hw, channels)
    centred = Sub(x, mean)
    square = Mul(centred, centred)
    var_w = ReduceMean(square, columns)
    var_hw = ReduceMean(var_w, rows)
    var = ReduceMean(var_hw, channels)
    eps = Constant<value_float: float = @epsilon>()
    more = Add(var, eps)
    deviation = Sqrt(more)
    factor = Div(scale, deviation)
    scaled = Mul(centred, factor)
    y = Add(scaled, bias)
}}
"""


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
    """Compute the means of normalisations over one axis after another.

    torch exports a group norm with one group as an instance norm of the
    flattened map. onnxruntime-web adds its float32 values, a million in a
    large picture, one after another, and the sum loses digits. Here means are
    over the columns, then the rows, then the channels.

    Args:
        model: The ``onnx.ModelProto`` of an exported model; it is changed.
    """
    from onnx import helper, parser

    found = _norms_of_maps(model.graph)
    if not found:
        return
    for node, x in found:
        node.op_type, node.domain, node.input[0] = _NAME, _DOMAIN, x
    # The outputs are maps now, no longer flat.
    changed = {node.output[0] for node, _ in found}
    kept = [v for v in model.graph.value_info if v.name not in changed]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    (opset,) = (o.version for o in model.opset_import if not o.domain)
    text = _FUNCTION.replace('OPSET', str(opset))
    model.functions.append(parser.parse_function(text))
    model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))


def _norms_of_maps(graph: Any) -> list[tuple[Any, str]]:
    """The instance norms of flattened maps, each with the name of its map."""
    from onnx import numpy_helper

    constants = {
        value.name: numpy_helper.to_array(value) for value in graph.initializer
    }
    maps = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == 'Reshape'
        and np.array_equal(constants.get(node.input[1], ()), (0, 1, -1))
    }
    return [
        (node, maps[node.input[0]])
        for node in graph.node
        if node.op_type == 'InstanceNormalization' and node.input[0] in maps
    ]
