"""Batches and configs as plain data, which a file can hold without code.

A pickle of a data sample names classes, and whoever opens it runs what they
are told to build. Here a sample becomes tensors, numbers and strings beside
the name of its class, and only the classes listed here are built again.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

_STRUCTURE = '__structure__'
_MODULES = dict(
    BitmapMasks='mmdet.structures.mask',
    DataSample='mmpretrain.structures',
    DetDataSample='mmdet.structures',
    HorizontalBoxes='mmdet.structures.bbox',
    InstanceData='mmengine.structures',
    LabelData='mmengine.structures',
    PixelData='mmengine.structures',
    PolygonMasks='mmdet.structures.mask',
    SegDataSample='mmseg.structures',
)
# What their constructors take, by the attribute that has it.
_ARGUMENTS = dict(
    BitmapMasks=dict(masks='masks', height='height', width='width'),
    HorizontalBoxes=dict(data='tensor'),
    PolygonMasks=dict(masks='masks', height='height', width='width'),
)
_PLAIN = (bool, int, float, str, bytes, type(None))


def to_plain(value: Any, left_out: list[str], where: str = '') -> Any:
    """Turn a batch or a config into what ``torch.load`` reads safely.

    Args:
        value: Tensors of any shape, arrays, numbers, strings, the data
            samples of the three libraries, and containers of them.
        left_out: Gets the place and the type of all that is none of these;
            None takes its place.
        where: Place of the value, for ``left_out``.

    Returns:
        The same as dicts, lists and tuples; tensors are on the CPU.
    """
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if type(value) in _PLAIN:
        return value
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in (
        'biuf'
    ):
        return value
    if isinstance(value, Mapping):
        return {
            str(key): to_plain(one, left_out, f'{where}.{key}')
            for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        plain = [
            to_plain(one, left_out, f'{where}.{number}')
            for number, one in enumerate(value)
        ]
        return tuple(plain) if isinstance(value, tuple) else plain
    if isinstance(value, torch.device | Path):
        return str(value)
    name = type(value).__name__
    if name in _MODULES and type(value).__module__.startswith(_MODULES[name]):
        return _structure_to_plain(value, left_out, where)
    left_out.append(f'{where.lstrip(".")} ({name})')
    return None


def _structure_to_plain(value: Any, left_out: list[str], where: str) -> Any:
    name = type(value).__name__
    if isinstance(value, BaseDataElement):
        arguments: Any = dict(metainfo=dict(value.metainfo_items()))
        fields = dict(value.items())
    else:
        taken = _ARGUMENTS[name]
        arguments = {key: getattr(value, of) for key, of in taken.items()}
        fields = {}
    return {
        _STRUCTURE: name,
        'arguments': to_plain(arguments, left_out, where),
        'fields': to_plain(fields, left_out, where),
    }


def from_plain(value: Any) -> Any:
    """Build what :func:`to_plain` was given again.

    Raises:
        ValueError: It names a class that is not listed here, or one that
            cannot be built from what is there.
    """
    if isinstance(value, list):
        return [from_plain(one) for one in value]
    if isinstance(value, tuple):
        return tuple(from_plain(one) for one in value)
    if not isinstance(value, Mapping):
        return value
    if _STRUCTURE not in value:
        return {key: from_plain(one) for key, one in value.items()}
    name = value[_STRUCTURE]
    if name not in _MODULES:
        raise ValueError(f'{name!r} is not a class that a batch may hold')
    cls = getattr(importlib.import_module(_MODULES[name]), name)
    try:
        built = cls(**from_plain(value['arguments']))
        for field, one in from_plain(value['fields']).items():
            setattr(built, field, one)
    # Their constructors assert.
    except (AssertionError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f'a {name} cannot be built: {error}') from error
    return built
