"""Formats that models are written in, as data.

To add one, write a module here with the functions of :class:`Writer` and add
a row to ``FORMATS`` (docs/export.md).
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mmtransxnet.utils.errors import UserError

Arrays = Mapping[str, np.ndarray]
Runner = Callable[[Arrays], dict[str, np.ndarray]]
"""Runs a model: named inputs to named outputs."""


class Writer(Protocol):
    """What the module of a format has."""

    def write(self, source: Any, path: Path, precision: str) -> None:
        """Write a :class:`~mmtransxnet.deploy.convert.Source` to a file."""

    def open_model(self, path: Path) -> Runner:
        """Load the file and return what runs it, in float32."""

    def set_metadata(self, path: Path, text: str) -> None:
        """Store the JSON of the model in the file under ``mmtransxnet``."""


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        name: Its name on the command line and in ``model.json``.
        file: Name of its file in the folder.
        precisions: Precisions that can be written.
        packages: Modules it needs.
        weights: Name of a second file, with the weights.
        int8_packages: Modules it needs for int8 beside those.
    """

    name: str
    file: str
    precisions: tuple[str, ...]
    packages: tuple[str, ...]
    weights: str | None = None
    int8_packages: tuple[str, ...] = ()

    @property
    def writer(self) -> Writer:
        """The module of the format."""
        return importlib.import_module(f'{__name__}.{self.name}')  # type: ignore[return-value]

    def precision(self, wanted: str) -> str:
        """The wanted precision, or fp32 where the format does not have it."""
        return wanted if wanted in self.precisions else 'fp32'

    def needs(self, wanted: str) -> tuple[str, ...]:
        """Modules for a precision."""
        quantised = self.precision(wanted) == 'int8'
        return self.packages + (self.int8_packages if quantised else ())


PRECISIONS = ('fp32', 'fp16', 'int8')

FORMATS = {
    row.name: row
    for row in (
        Format(
            name='onnx',
            file='model.onnx',
            precisions=('fp32', 'fp16'),
            packages=('onnx', 'onnxscript', 'onnxruntime'),
        ),
        Format(
            name='openvino',
            file='model.xml',
            precisions=PRECISIONS,
            packages=('onnx', 'onnxscript', 'openvino'),
            weights='model.bin',
            int8_packages=('nncf',),
        ),
    )
}


def check_formats(names: Sequence[str], precision: str) -> None:
    """Check that formats exist, have a precision and can be written here.

    Nothing is imported for it.

    Raises:
        UserError: A name or the precision is unknown, no format has the
            precision, or a package is not installed.
    """
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise UserError(
            f'--format {" ".join(unknown)}: expected some of '
            f'{", ".join(FORMATS)}'
        )
    if precision not in PRECISIONS:
        raise UserError(
            f'--precision {precision}: expected one of {", ".join(PRECISIONS)}'
        )
    rows = [FORMATS[name] for name in names]
    if all(precision not in row.precisions for row in rows):
        able = [n for n, row in FORMATS.items() if precision in row.precisions]
        raise UserError(
            f'--precision {precision} is not available in {", ".join(names)}: '
            f'add --format {able[0]}'
        )
    needed = {name for row in rows for name in row.needs(precision)}
    missing = sorted(name for name in needed if find_spec(name) is None)
    if missing:
        raise UserError(
            f'{", ".join(missing)} {"is" if len(missing) == 1 else "are"} not '
            "installed: pip install 'mmtransxnet[export]'"
        )
