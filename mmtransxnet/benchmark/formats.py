"""The rows of the table of formats, their record and the table."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmtransxnet.utils.errors import UserError

NOT_MEASURED = 'Not measured yet: `tools/benchmark/formats.py`.\n'

FOLDER = 'formats'
"""Of docs/benchmarks; its parent has the files of ``make bench``."""


@dataclass(frozen=True)
class Form:
    """A format and precision, and what runs it.

    Attributes:
        title: In the table.
        format: Of tools/export.py.
        precision: Of tools/export.py.
        engine: Of predict.py.
        bf16: Whether it is run in bfloat16.
    """

    title: str
    format: str
    precision: str
    engine: str
    bf16: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """The files whose size counts."""
        if self.format == 'onnx':
            return ('model.onnx',)
        return ('model.xml', 'model.bin')


PYTORCH = 'PyTorch'

FORMS = (
    Form('ONNX Runtime fp32', 'onnx', 'fp32', 'onnxruntime'),
    Form('ONNX Runtime fp16 weights', 'onnx', 'fp16', 'onnxruntime'),
    Form('OpenVINO fp32', 'openvino', 'fp32', 'openvino'),
    Form('OpenVINO bf16', 'openvino', 'fp32', 'openvino', bf16=True),
    Form('OpenVINO fp16 weights', 'openvino', 'fp16', 'openvino'),
    Form('OpenVINO int8', 'openvino', 'int8', 'openvino'),
)


def formats_table(folder: Path) -> str:
    """A table for each record of a folder, as markdown.

    Args:
        folder: docs/benchmarks.

    Raises:
        UserError: A file is not what tools/benchmark/formats.py writes.
    """
    paths = sorted((folder / FOLDER).glob('*.json'))
    return '\n'.join(map(_table, paths)) or NOT_MEASURED


def _table(path: Path) -> str:
    try:
        content = json.loads(path.read_text())
        rows = [
            _row(model, result)
            for model in content['models']
            for result in model['results']
        ]
        machine = content['machine']
        title = f'{machine["device"]}, threads: {machine["threads"]}'
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{path} is not a file of tools/benchmark/formats.py '
            f'({type(error).__name__}: {error}); measure again or remove it'
        ) from error
    columns = [
        'model',
        'run by',
        'metric in points',
        'size in MB',
        'images/s',
        'peak memory in MiB',
    ]
    lines = [columns, ['---'] * len(columns), *rows]
    table = ''.join(f'| {" | ".join(line)} |\n' for line in lines)
    return f'{title}; version {content["version"]}\n\n{table}'


def _row(model: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    metrics = ', '.join(
        f'{name} {value:.1f}' for name, value in result['metrics'].items()
    )
    speed = 'not measured'
    if 'images_per_second' in result:
        speed = f'{result["images_per_second"]:.1f}'
    return [
        model['name'],
        result['form'],
        metrics,
        f'{result["size_mb"]:.1f}',
        speed,
        f'{result["peak_mib"]:.0f}',
    ]
