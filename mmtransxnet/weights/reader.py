"""Read checkpoint files without running anything in them."""

import argparse
import importlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mmtransxnet.models.state_dict import STEM
from mmtransxnet.utils.errors import CheckpointError
from mmtransxnet.utils.text import first_few

# numpy 2 renamed the module; files contain the name of the numpy version that
# wrote them.
_MULTIARRAY_NAMES = ('numpy.core.multiarray', 'numpy._core.multiarray')
_multiarray = importlib.import_module(
    _MULTIARRAY_NAMES[int(np.__version__.split('.')[0]) >= 2]
)
_NUMBERS = [f'{code}{size}' for code in 'iu' for size in (1, 2, 4, 8)]
_NUMBERS += ['b1', 'f2', 'f4', 'f8']

# At most one file: it was read for a check and will be loaded next.
_cached: dict[tuple[Any, ...], Mapping[str, Any]] = {}

_STATISTICS = ('min', 'max', 'mean', 'current')


def _statistic(owner: type, name: str) -> Any:
    """Replace ``getattr`` in history buffers, allowing nothing else.

    A buffer refers to its statistics by ``getattr(HistoryBuffer, 'mean')``;
    the real ``getattr`` would give a file access to much more.
    """
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise ValueError(f'a checkpoint must not ask for {owner}.{name}')
    return getattr(owner, name)


# In addition to what torch allows: tensors, numbers, strings, containers.
_ALLOWED: tuple[Any, ...] = (
    # The arguments of the published trainings.
    argparse.Namespace,
    # The history of losses in the Runner's own files.
    HistoryBuffer,
    (_statistic, 'builtins.getattr'),
    bytes,  # of an empty array
    np.ndarray,
    np.dtype,
    *dict.fromkeys(type(np.dtype(name)) for name in _NUMBERS),
    *(
        (getattr(_multiarray, name), f'{module}.{name}')
        for module in _MULTIARRAY_NAMES
        for name in ('_reconstruct', 'scalar')
    ),
)


@contextmanager
def _allow_list() -> Iterator[None]:
    """Allow ``torch.load`` to build the types in checkpoints, temporarily."""
    # On exit, torch removes all given types, even those that the user had
    # allowed before.
    allowed = torch.serialization.get_safe_globals()
    extra = [item for item in _ALLOWED if item not in allowed]
    with torch.serialization.safe_globals(extra):
        yield


def read_checkpoint(
    path: str | Path, map_location: Any = 'cpu'
) -> dict[str, Any]:
    """Read a ``.pth`` or ``.safetensors`` file with any suffix.

    Content that :func:`cache_checkpoint` holds is not read again.

    Args:
        path: The file.
        map_location: See ``torch.load``; tensors of safetensors files are
            always on the CPU.

    Returns:
        The content of the file; for a safetensors file, the tensors as
        ``state_dict`` and the metadata as ``meta``.

    Raises:
        CheckpointError: The file is missing, empty, truncated or not a
            checkpoint, or holds objects other than tensors and training state,
            or NaN weights.
    """
    path = _expanded(path)
    if _identity(path) in _cached:
        return dict(_cached[_identity(path)])
    if not os.path.isfile(path):  # Path's raises for very long names
        raise CheckpointError(f'checkpoint {path} is not a file')
    try:
        with path.open('rb') as file:
            start = file.read(512)
    except OSError as error:
        raise CheckpointError(
            f'checkpoint {path} cannot be read: {error.strerror}'
        ) from error
    problem = _foreign_format(start)
    if problem:
        raise CheckpointError(
            f'checkpoint {path} cannot be read: it {problem}'
        )
    try:
        if _is_safetensors(start):
            content = _read_safetensors(path)
        else:
            with _allow_list():
                content = torch.load(path, map_location, weights_only=True)
    # torch raises many kinds of errors for a broken file.
    except Exception as error:
        raise CheckpointError(
            f'checkpoint {path} cannot be read: {_reason_and_remedy(error)}'
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f'checkpoint {path} holds a {type(content).__name__}, not weights'
        )
    _check_arguments(content, path)
    _check_numbers(content, path)
    return dict(content)


def cache_checkpoint(path: str | Path, content: Mapping[str, Any]) -> None:
    """Cache the content of a file for the next reader.

    A single file is cached, until it is loaded.

    Args:
        path: The file; it need not exist on this machine.
        content: Its content, on the CPU.
    """
    clear_cache()
    _cached[_identity(_expanded(path))] = content


def clear_cache() -> None:
    """Drop the cached content, because it was loaded or is not needed."""
    _cached.clear()


def _identity(path: Path) -> tuple[Any, ...]:
    """A key for the content of a file: its path, and when it changed."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # does not exist, or an invalid name
        return (str(path),)
    return str(path), status.st_mtime_ns, status.st_size


def _expanded(path: str | Path) -> Path:
    """Expand the home folder in a path, if it exists."""
    try:
        return Path(os.path.expanduser(path))
    except ValueError:  # characters that are invalid in user names
        return Path(path)


def _foreign_format(start: bytes) -> str | None:
    """Describe a file that is not a checkpoint by its first bytes, or None."""
    if not start:
        return 'is empty. Fetch it again'
    if start.lstrip().lower().startswith((b'<!doctype', b'<html', b'<?xml')):
        return (
            'is a web page, as servers send for an error. Delete it and '
            'fetch the file itself'
        )
    return None


def _is_safetensors(start: bytes) -> bool:
    """Whether the file starts with a length and a JSON object."""
    return start[8:9] == b'{' and start[:4] != b'PK\x03\x04'


def _read_safetensors(path: Path) -> dict[str, Any]:
    with safe_open(path, framework='pt') as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        meta: dict[str, Any] = dict(file.metadata() or {})
    # The metadata of the format are strings.
    if 'dataset_meta' in meta:
        meta['dataset_meta'] = json.loads(meta['dataset_meta'])
    return dict(state_dict=state, meta=meta)


def _reason_and_remedy(error: Exception) -> str:
    """The relevant line of an error of ``torch.load``, and the remedy."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    refused = [
        line.strip()
        for line in lines
        if 'nsupported' in line or 'not allowed' in line or 'must not' in line
    ]
    if refused and not isinstance(error, SafetensorError):
        # Without torch's advice to allow the type.
        refusal = refused[0].partition('. Please use')[0]
        return (
            'refused, since nothing but weights and training state is loaded '
            f'({refusal}). A file that asks for more could run anything on '
            'this machine'
        )
    return (
        'it is damaged, cut short or not a checkpoint '
        f'({lines[0].strip()}). '
        'Fetch or copy it again'
    )


def _check_arguments(content: Mapping[str, Any], path: Path) -> None:
    """Raise an error for training arguments that are not plain data."""
    arguments = content.get('args')
    if not isinstance(arguments, argparse.Namespace):
        return
    for name, value in vars(arguments).items():
        if not _is_plain(value):
            raise CheckpointError(
                f'checkpoint {path} cannot be read: its args.{name} is a '
                f'{type(value).__name__}, not plain data'
            )


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, (*value.keys(), *value.values())))
    if isinstance(value, list | tuple | set):
        return all(map(_is_plain, value))
    return value is None or isinstance(
        value, bool | int | float | complex | str | bytes | torch.device
    )


def _check_numbers(content: Mapping[str, Any], path: Path) -> None:
    """Raise an error for NaN weights, which would make every result NaN."""
    broken = [
        name
        for name, value in raw_state_dict(content).items()
        if isinstance(value, Tensor)
        and value.is_floating_point()
        and bool(value.isnan().any())
    ]
    if broken:
        raise CheckpointError(
            f'checkpoint {path} holds NaN in {first_few(broken)}. The '
            'training diverged, or the file is damaged; use an earlier '
            'checkpoint'
        )


def raw_state_dict(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The weights in a checkpoint under their original names."""
    for key in ('state_dict', 'model'):
        if isinstance(content.get(key), Mapping):
            return content[key]
    return content


def state_dict_of(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights in a checkpoint without prefixes of wrappers.

    Prefixes of all names are stripped: ``module.`` always, ``model.`` from
    those of a backbone.
    """
    state = {
        name: value
        for name, value in raw_state_dict(content).items()
        if isinstance(value, Tensor)
    }
    for prefix in ('module.', 'model.', 'module.'):
        if prefix == 'model.' and prefix + STEM not in state:
            continue
        if state and all(name.startswith(prefix) for name in state):
            state = {k.removeprefix(prefix): v for k, v in state.items()}
    return state
