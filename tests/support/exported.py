"""Exported folders of tiny models, whose outputs are known in advance.

* classification: the softmax of a tenth of the mean red, green and blue;
* detection: two boxes, of the middle and of the left half of the picture; the
  scores are its mean red and half of it, the masks discs;
* segmentation: 1 where the mean of the channels is above 127, 0 elsewhere.
"""

import hashlib
import json
import shutil

import numpy as np
from onnx import TensorProto, helper, numpy_helper, parser, save

from tests.support.paths import ROOT

RUNTIME = ROOT / 'mmtransxnet/deploy/runtime.py'

CLASSES = {
    'classification': ['red', 'green', 'blue'],
    'detection': ['middle', 'left'],
    'segmentation': ['dark', 'bright'],
}
PALETTE = [[230, 25, 75], [60, 180, 75], [0, 130, 200]]

STEPS = {
    'classification': [
        {
            'step': 'resize_edge',
            'edge': 'short',
            'scale': 40,
            'backend': 'pillow',
            'interpolation': 'bicubic',
        },
        {'step': 'center_crop', 'size': [32, 32]},
    ],
    'detection': [
        {
            'step': 'resize',
            'scale': [96, 64],
            'keep_ratio': True,
            'backend': 'cv2',
            'interpolation': 'bilinear',
        }
    ],
    'segmentation': [{'step': 'resize_to_multiple', 'divisor': 32}],
}


def disc(size=28):
    """A probability that falls from the middle to the corners."""
    axis = (np.arange(size) + 0.5) / size - 0.5
    return np.exp(-8 * (axis[:, None] ** 2 + axis**2)).astype(np.float32)


class _Graph:
    """Collects nodes and constants."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, value):
        name = f'c{len(self.constants)}'
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def add(self, kind, inputs, output=None, **attributes):
        output = output or f'v{len(self.nodes)}'
        node = helper.make_node(kind, inputs, [output], **attributes)
        self.nodes.append(node)
        return output

    def cast(self, value, kind=TensorProto.FLOAT, output=None):
        return self.add('Cast', [value], output, to=kind)


def _ints(*values):
    return np.array(values, np.int64)


def _classification(graph):
    pixels = graph.cast('images')
    mean = graph.add(
        'ReduceMean', [pixels, graph.constant(_ints(1, 2))], keepdims=0
    )
    tenth = graph.add('Mul', [mean, graph.constant(np.float32(0.1))])
    graph.add('Softmax', [tenth], 'scores', axis=1)
    return [], [('scores', TensorProto.FLOAT, ['batch', 3])]


def _detection(graph):
    # Height, width as x1, y1, x2, y2 of both boxes.
    shares = [[[0.25, 0.25, 0.75, 0.75], [0, 0, 0.5, 1]]]
    sizes = graph.cast('sizes')
    order = graph.constant(_ints(1, 0, 1, 0))
    corners = graph.add('Gather', [sizes, order], axis=1)
    rows = graph.add('Unsqueeze', [corners, graph.constant(_ints(1))])
    shares = graph.constant(np.array(shares, np.float32))
    graph.add('Mul', [rows, shares], 'boxes')
    # Padding is zero, so the sum over the valid part is that over all.
    pixels = graph.cast('images')
    total = graph.add(
        'ReduceSum', [pixels, graph.constant(_ints(1, 2))], keepdims=0
    )
    red = graph.add('Gather', [total, graph.constant(_ints(0))], axis=1)
    area = graph.add(
        'ReduceProd', [sizes, graph.constant(_ints(1))], keepdims=1
    )
    mean = graph.add('Div', [red, area])
    weights = np.array([[1 / 255, 0.5 / 255]], np.float32)
    graph.add('Mul', [mean, graph.constant(weights)], 'scores')
    batch = graph.add('Shape', ['sizes'], start=0, end=1)
    for name, value in (('count', _ints(2)), ('labels', _ints(0, 1)[None])):
        shape = (
            [batch, graph.constant(_ints(2))] if name == 'labels' else [batch]
        )
        shape = graph.add('Concat', shape, axis=0)
        graph.add('Expand', [graph.constant(value), shape], name)
    masks = graph.constant(np.stack([disc(), disc()])[None])
    shape = graph.add(
        'Concat', [batch, graph.constant(_ints(2, 28, 28))], axis=0
    )
    graph.add('Expand', [masks, shape], 'masks')
    return [('sizes', TensorProto.INT64, ['batch', 2])], [
        ('count', TensorProto.INT64, ['batch']),
        ('boxes', TensorProto.FLOAT, ['batch', 2, 4]),
        ('scores', TensorProto.FLOAT, ['batch', 2]),
        ('labels', TensorProto.INT64, ['batch', 2]),
        ('masks', TensorProto.FLOAT, ['batch', 2, 28, 28]),
    ]


def _segmentation(graph):
    pixels = graph.cast('images')
    mean = graph.add(
        'ReduceMean', [pixels, graph.constant(_ints(3))], keepdims=0
    )
    channel = graph.add('Unsqueeze', [mean, graph.constant(_ints(1))])
    batch = graph.add('Shape', [channel], start=0, end=2)
    shape = graph.add('Concat', [batch, 'target_size'], axis=0)
    resized = graph.add(
        'Resize',
        [channel, '', '', shape],
        mode='linear',
        coordinate_transformation_mode='half_pixel',
    )
    map_ = graph.add('Squeeze', [resized, graph.constant(_ints(1))])
    half = graph.constant(np.float32(127))
    bright = graph.add('Greater', [map_, half])
    graph.cast(bright, TensorProto.UINT8, 'labels')
    graph.add('Div', [map_, graph.constant(np.float32(255))], 'scores')
    return [('target_size', TensorProto.INT64, [2])], [
        ('labels', TensorProto.UINT8, ['batch', 'h', 'w']),
        ('scores', TensorProto.FLOAT, ['batch', 'h', 'w']),
    ]


_TASKS = {
    'classification': _classification,
    'detection': _detection,
    'segmentation': _segmentation,
}


def tiny_model(task, batch=None, size=None):
    """The ONNX model of a task."""
    graph = _Graph()
    inputs, outputs = _TASKS[task](graph)
    height, width = size or ('height', 'width')
    images = ('images', TensorProto.UINT8, ['batch', height, width, 3])

    def described(values):
        return [
            helper.make_tensor_value_info(
                name, kind, [batch if n == 'batch' and batch else n for n in s]
            )
            for name, kind, s in values
        ]

    made = helper.make_graph(
        graph.nodes,
        task,
        described([images, *inputs]),
        described(outputs),
        graph.constants,
    )
    return helper.make_model(
        made, opset_imports=[helper.make_opsetid('', 18)], ir_version=9
    )


NORMALISED = """
<ir_version: 9, opset_import: ["" : 20]>
normalised (uint8[batch, height, width, 3] images) => (float[batch, 3] scores)
<int64[3] all = {1, 2, 3}, float small = {1e-5}, int64 first = {0}>
{
    pixels = Cast<to = 1>(images)
    map = Transpose<perm = [0, 3, 1, 2]>(pixels)
    mean = ReduceMean<keepdims = 1>(map, all)
    centred = Sub(map, mean)
    square = Mul(centred, centred)
    variance = ReduceMean<keepdims = 1>(square, all)
    more = Add(variance, small)
    deviation = Sqrt(more)
    normalised = Div(centred, deviation)
    row = Gather<axis = 2>(normalised, first)
    scores = Gather<axis = 2>(row, first)
}
"""


def normalised_model():
    """A norm as exported models have it, of all pixels.

    The scores of the classes are the first pixel's channels.
    """
    return parser.parse_model(NORMALISED)


def write_exported(
    folder,
    task,
    formats=('onnx',),
    batch=None,
    size=None,
    model=None,
    **changes,
):
    """Write a folder as tools/export.py does; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / 'model.onnx'
    save(model or tiny_model(task, batch, size), path)
    names = {'onnx': 'model.onnx'}
    if 'openvino' in formats:
        import openvino

        model = openvino.convert_model(path)
        openvino.save_model(model, folder / 'model.xml', False)
        names['openvino'] = 'model.xml'
    if 'onnx' not in formats:
        path.unlink()
        del names['onnx']
    height, width = size or (None, None)
    content = {
        'format_version': 1,
        'task': task,
        'classes': CLASSES[task],
        'palette': PALETTE,
        'files': {name: _entry(folder, names[name]) for name in formats},
        'input': {
            'batch': batch,
            'height': height,
            'width': width,
            'divisor': 32,
            'steps': STEPS[task] if model is None else [],
        },
        'masks': None,
        'thresholds': {'score': 0.3},
        **changes,
    }
    if task == 'detection' and 'masks' not in changes:
        content['masks'] = {'size': 28, 'threshold': 0.5, 'paste': True}
    (folder / 'model.json').write_text(json.dumps(content))
    shutil.copy(RUNTIME, folder / 'predict.py')
    return folder


def _entry(folder, name):
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    return {'file': name, 'precision': 'fp32', 'sha256': digest}
