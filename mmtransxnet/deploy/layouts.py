"""Model repositories for OpenVINO Model Server and Triton.

Both take a folder for each model, with a numbered folder for each version.
The servers themselves are not run in the tests; the fields of the
configurations are those that their documentation lists.
"""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmtransxnet.utils.atomic_write import write_safely
from mmtransxnet.utils.errors import UserError

MAX_BATCH = 8
"""Images that Triton collects for a run, where the batch is dynamic."""

_TYPES = {'uint8': 'TYPE_UINT8', 'int64': 'TYPE_INT64', 'float32': 'TYPE_FP32'}

# Type, and shape without the batch, by name.
_Tensors = dict[str, tuple[str, list[int]]]


def write_layout(folder: Path, out: Path, kind: str) -> None:
    """Write an exported folder as a model repository.

    Args:
        folder: The exported folder.
        out: The repository; the model is added to it under the name of the
            folder.
        kind: ``'ovms'`` or ``'triton'``.

    Raises:
        UserError: The kind is unknown, the name of the folder cannot be that
            of a model, or the repository has this model already.
    """
    if kind not in LAYOUTS:
        raise UserError(
            f'--layout {kind}: expected one of {", ".join(LAYOUTS)}'
        )
    target = check_layout(folder, out)
    info = json.loads((folder / 'model.json').read_text('utf-8'))
    # OpenVINO reads both formats, but its own without converting.
    preferred = 'openvino' if 'openvino' in info['files'] else 'onnx'
    version = target / '1'
    version.mkdir(parents=True)
    try:
        for path in _files(folder, info['files'][preferred]['file']):
            shutil.copyfile(path, version / path.name)
        shutil.copyfile(folder / 'model.json', target / 'model.json')
        LAYOUTS[kind](out, target.name, info, preferred)
    except BaseException:
        shutil.rmtree(target)
        raise


def check_layout(folder: Path, out: Path) -> Path:
    """Check that an exported folder may be added to a model repository.

    The folder need not exist yet.

    Returns:
        The folder of the model in the repository.

    Raises:
        UserError: The name of the folder cannot be that of a model, or the
            repository has this model already.
    """
    name = folder.resolve().name
    if not re.fullmatch(r'[\w.-]+', name, re.ASCII):
        raise UserError(
            f'{folder}: a model server needs a name of letters, digits, ".", '
            '"-" and "_"; rename the folder'
        )
    target = out / name
    if target.exists():
        raise UserError(
            f'{target} exists: remove it, or choose another folder'
        )
    return target


def _files(folder: Path, name: str) -> list[Path]:
    path = folder / name
    weights = path.with_suffix('.bin')
    return [path, weights] if weights.is_file() else [path]


def _ovms(
    out: Path, name: str, info: Mapping[str, Any], file_format: str
) -> None:
    """Add the model to config.json, which lists all of the repository."""
    path = out / 'config.json'
    content = _listed(path)
    settings = {
        'name': name,
        # Relative to config.json.
        'base_path': name,
        'target_device': 'CPU',
        'plugin_config': {'PERFORMANCE_HINT': 'THROUGHPUT'},
    }
    content['model_config_list'].append({'config': settings})
    write_safely(path, (json.dumps(content, indent=2) + '\n').encode())


def _listed(path: Path) -> dict[str, Any]:
    """The list of models of a repository, empty if there is none."""
    if not path.exists():
        return {'model_config_list': []}
    try:
        content = json.loads(path.read_text('utf-8'))
    except (OSError, ValueError) as error:
        raise UserError(f'{path} cannot be read ({error})') from error
    models = content.get('model_config_list') if type(content) is dict else 0
    if not isinstance(models, list):
        raise UserError(
            f'{path} has no list "model_config_list": correct it, or choose '
            'another folder'
        )
    return content


def _triton(
    out: Path, name: str, info: Mapping[str, Any], file_format: str
) -> None:
    """Write config.pbtxt, in the text format of protocol buffers."""
    inputs, outputs = tensors(info)
    # Triton batches only if all inputs have a batch.
    batched = info['input']['batch'] is None and 'target_size' not in inputs
    backend = {'onnx': 'onnxruntime'}.get(file_format, file_format)
    lines = [
        f'name: "{name}"',
        f'backend: "{backend}"',
        f'default_model_filename: "{info["files"][file_format]["file"]}"',
        f'max_batch_size: {MAX_BATCH if batched else 0}',
    ]
    batch = [] if batched else [info['input']['batch'] or -1]
    for kind, group in (('input', inputs), ('output', outputs)):
        entries = [
            _tensor(key, dtype, dims if key == 'target_size' else batch + dims)
            for key, (dtype, dims) in group.items()
        ]
        lines += [f'{kind} [', ',\n'.join(entries), ']']
    if batched:
        # Only images of one size are put together.
        lines.append('dynamic_batching { max_queue_delay_microseconds: 5000 }')
    lines.append('instance_group [ { kind: KIND_CPU } ]')
    text = '\n'.join(lines) + '\n'
    (out / name / 'config.pbtxt').write_text(text, 'utf-8')


def _tensor(name: str, dtype: str, dims: list[int]) -> str:
    # An empty list stands for one value an image.
    shape = ', '.join(map(str, dims or [1]))
    reshape = '' if dims else '\n    reshape: { shape: [ ] }'
    return (
        f'  {{\n    name: "{name}"\n    data_type: {_TYPES[dtype]}\n'
        f'    dims: [ {shape} ]{reshape}\n  }}'
    )


def tensors(info: Mapping[str, Any]) -> tuple[_Tensors, _Tensors]:
    """Inputs and outputs of a model by name.

    Returns:
        Type and shape without the batch, -1 where it is dynamic.
    """
    height = info['input']['height'] or -1
    width = info['input']['width'] or -1
    inputs: _Tensors = {'images': ('uint8', [height, width, 3])}
    if info['task'] == 'classification':
        return inputs, {'scores': ('float32', [len(info['classes'])])}
    if info['task'] == 'segmentation':
        inputs['target_size'] = ('int64', [2])
        large = len(info['classes']) > 256
        return inputs, {
            'labels': ('int64' if large else 'uint8', [-1, -1]),
            'scores': ('float32', [-1, -1]),
        }
    inputs['sizes'] = ('int64', [2])
    most = info['thresholds']['max_per_image']
    outputs: _Tensors = {
        'count': ('int64', []),
        'boxes': ('float32', [most, 4]),
        'scores': ('float32', [most]),
        'labels': ('int64', [most]),
    }
    if info['masks']:
        side = info['masks']['size']
        outputs['masks'] = ('float32', [most, side, side])
    return inputs, outputs


LAYOUTS: dict[str, Callable[[Path, str, Mapping[str, Any], str], None]] = {
    'ovms': _ovms,
    'triton': _triton,
}
