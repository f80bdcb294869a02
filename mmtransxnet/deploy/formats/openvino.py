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
    a detector would then find other boxes in pictures with even areas. Its
    stable TopK compares each value with all K best, which took a quarter of
    the time of Mask R-CNN. So the K best are found by the fast one, chosen by
    their order, and only these are ranked by the stable one.

    Args:
        model: A model of OpenVINO, changed in place. A TopK is of the highest
            values of rows ``(B, N)``, or that of a label map's classes.
    """
    from openvino import opset11 as op

    for node in model.get_ops():
        if node.get_type_name() != 'TopK':
            continue
        values, k = node.input_value(0), node.input_value(1)
        kept = node.get_attributes()
        options = (
            *(kept['axis'], kept['mode'], kept['sort']),
            kept['index_element_type'],
        )
        if values.get_partial_shape().rank.get_length() != 2:
            stable = op.topk(values, k, *options, stable=True)
            for i in range(node.get_output_size()):
                node.output(i).replace(stable.output(i))
            continue
        fast = op.topk(values, k, *options)
        index = _first_k(values, fast, k)
        chosen = op.gather_elements(values, index, 1)
        best = op.topk(chosen, k, *options, stable=True)
        order = op.gather_elements(index, best.output(1), 1)
        node.output(0).replace(best.output(0))
        node.output(1).replace(order.output(0))


def _first_k(values: Any, fast: Any, k: Any) -> Any:
    """Indices of the K best of each row, the first among equal ones.

    Args:
        values: ``(B, N)``.
        fast: Their TopK, with any of those that equal the last.
        k: K.

    Returns:
        Ascending indices ``(B, K)``.
    """
    from openvino import opset11 as op

    index = fast.output(1)
    lowest = op.reduce_min(op.gather_elements(values, index, 1), 1, True)
    above = op.convert(op.greater(values, lowest), 'i64')
    equal = op.convert(op.equal(values, lowest), 'i64')
    # Numbers those above, then the equal ones, then the others: were the
    # comparisons rounded, in bfloat16, there would be K nevertheless.
    below = op.subtract(op.subtract(1, above), equal)
    number, before = 0, 0
    for part in (above, equal, below):
        place = op.add(op.cum_sum(part, 1), before)
        number = op.add(op.multiply(place, part), number)
        before = op.add(op.reduce_sum(part, 1, True), before)
    first = op.less_equal(number, op.convert(k, 'i64'))
    columns = op.gather(op.non_zero(first, 'i64'), 1, 0)
    return op.reshape(columns, op.shape_of(index), False)


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
