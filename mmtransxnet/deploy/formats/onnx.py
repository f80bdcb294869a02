"""ONNX, run by ONNX Runtime; also what other formats are converted from."""

from pathlib import Path
from typing import Any

import numpy as np

from mmtransxnet.deploy.convert import Source
from mmtransxnet.deploy.formats import Runner
from mmtransxnet.deploy.runtime import OnnxRuntime

# Smaller constants are sizes, positions and scales.
_MIN_HALF_VALUES = 1024


def write(source: Source, path: Path, precision: str) -> None:
    """Write ``model.onnx``; see :class:`mmtransxnet.deploy.formats.Writer`."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(source.onnx_model)
    if precision == 'fp16':
        _halve_weights(model)
    onnx.save(model, path)


def open_model(path: Path) -> Runner:
    """Load the model in ONNX Runtime, on the CPU."""
    return OnnxRuntime(path)


def set_metadata(path: Path, text: str) -> None:
    """Store the JSON of the model in the file."""
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, {'mmtransxnet': text})
    onnx.save(model, path)


def _halve_weights(model: Any) -> None:
    """Store large weights in float16; they are computed with in float32."""
    import onnx

    casts = []
    for weight in model.graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < _MIN_HALF_VALUES:
            continue
        name = weight.name
        half = f'{name}_half'
        weight.CopyFrom(
            onnx.numpy_helper.from_array(values.astype(np.float16), half)
        )
        casts.append(
            onnx.helper.make_node(
                'Cast', [half], [name], to=onnx.TensorProto.FLOAT
            )
        )
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
