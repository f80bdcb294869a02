"""Read checkpoints safely and say whether they fit a model."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer
from torch import Tensor

# numpy 2 renamed the module.
_multiarray = importlib.import_module(
    'numpy._core.multiarray'
    if int(np.__version__.split('.')[0]) >= 2
    else 'numpy.core.multiarray'
)

_STATISTICS = ('min', 'max', 'mean', 'current')


def allow_training_state() -> None:
    """Let ``torch.load(weights_only=True)`` read the Runner's own files.

    Beside tensors they hold the message hub's history of losses. With the
    original mmengine a run could not resume from its own checkpoint.
    """
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            _multiarray._reconstruct,
            _multiarray.scalar,
            np.ndarray,
            np.dtype,
            *(type(np.dtype(name)) for name in ('f8', 'f4', 'i8', 'i4')),
            (_statistic, 'builtins.getattr'),
        ]
    )


def _statistic(owner: type, name: str) -> Any:
    """What ``getattr`` is for in a history buffer, and nothing else.

    A buffer names its statistics by ``getattr(HistoryBuffer, 'mean')``; the
    real ``getattr`` would let a file reach much more.
    """
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise ValueError(f'a checkpoint must not ask for {owner}.{name}')
    return getattr(owner, name)


def read_checkpoint(path: str) -> dict[str, Any]:
    """Read a checkpoint file without running anything in it.

    Raises:
        ValueError: The file is missing, empty, truncated, no checkpoint, or
            holds objects other than tensors and training state.
    """
    if not Path(path).is_file():
        raise ValueError(f'checkpoint {path} is not a file')
    # mmengine's loader takes back what it allowed for itself, ours with it.
    allow_training_state()
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    # torch raises almost anything for a broken file.
    except Exception as error:
        raise ValueError(
            f'checkpoint {path} cannot be read ({_reason(error)}). Is the '
            'file complete, and does it hold nothing but weights and '
            'training state?'
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(
            f'checkpoint {path} holds a {type(content).__name__}, not weights'
        )
    return dict(content)


def _reason(error: Exception) -> str:
    """The telling line of an error of ``torch.load``."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    telling = [line for line in lines if 'Unsupported' in line]
    return (telling or lines)[0].strip()


def state_dict_of(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights in what :func:`read_checkpoint` returned."""
    state = content.get('state_dict', content)
    return {
        name.removeprefix('module.'): value
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def misfits(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> list[str]:
    """List why weights do not fit a model, one line a reason.

    Args:
        state: The weights.
        expected: The model's own state dict.
    """
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    mismatched = [
        f'{name} {tuple(state[name].shape)} for {tuple(value.shape)}'
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    kinds = {
        'missing': missing,
        'unexpected': unexpected,
        'of another shape': mismatched,
    }
    return [
        f'{len(names)} {kind}: {", ".join(names[:3])}'
        + (', ...' if len(names) > 3 else '')
        for kind, names in kinds.items()
        if names
    ]
