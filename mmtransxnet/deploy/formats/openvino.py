"""OpenVINO's intermediate representation, converted from ONNX."""

import tempfile
from pathlib import Path
from typing import Any

from mmtransxnet.deploy.convert import Source
from mmtransxnet.deploy.formats import Runner
from mmtransxnet.deploy.runtime import OpenVino


def write(source: Source, path: Path, precision: str) -> None:
    """Write ``model.xml`` and ``model.bin``."""
    import openvino

    model = converted(source)
    if precision == 'int8':
        from mmtransxnet.deploy.quantisation import quantise

        model = quantise(model, source.calibration)
    openvino.save_model(model, path, compress_to_fp16=precision == 'fp16')


def converted(source: Source) -> Any:
    """The model in OpenVINO, float32."""
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'model.onnx'
        source.save_onnx(path)
        model = openvino.convert_model(path)
        # The weights may be mapped from the file.
        model = model.clone()
    order_ties(model)
    return model


def order_ties(model: Any) -> None:
    """Let equal scores keep their order, as ONNX defines it.

    OpenVINO converts ONNX's TopK to one that may choose any of equal values:
    a detector would then find other boxes in pictures with even areas.

    Args:
        model: A model of OpenVINO, changed in place.
    """
    from openvino import opset11

    for node in model.get_ops():
        if node.get_type_name() != 'TopK':
            continue
        kept = node.get_attributes()
        stable = opset11.topk(
            node.input_value(0),
            node.input_value(1),
            kept['axis'],
            kept['mode'],
            kept['sort'],
            kept['index_element_type'],
            stable=True,
        )
        for i in range(node.get_output_size()):
            node.output(i).replace(stable.output(i))


def open_model(path: Path) -> Runner:
    """Load the model in OpenVINO as predict.py does, in float32.

    From the second picture of a size on, it runs the program for this size
    alone, so that a comparison has both.
    """
    return OpenVino(path, worth=0)


def set_metadata(path: Path, text: str) -> None:
    """Store the JSON of the model in the file."""
    import openvino

    model = openvino.Core().read_model(path)
    model.set_rt_info(text, 'mmtransxnet')
    other = path.with_name(f'new_{path.name}')
    openvino.save_model(model, other, compress_to_fp16=False)
    del model
    for suffix in ('.xml', '.bin'):
        other.with_suffix(suffix).replace(path.with_suffix(suffix))
