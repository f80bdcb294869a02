"""Load weight files into models, and write such files."""

import io
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmtransxnet.utils.atomic_write import write_safely
from mmtransxnet.utils.errors import CheckpointError
from mmtransxnet.utils.text import first_few
from mmtransxnet.weights.matching import Match, match_weights
from mmtransxnet.weights.mmengine_loaders import path_of
from mmtransxnet.weights.reader import read_checkpoint, state_dict_of


def match_file(
    model: nn.Module,
    source: str,
    prefix: str | None = None,
    allow: Sequence[str] = (),
) -> Match:
    """Read a file and match it with a model without loading it.

    Arguments, result and errors are those of :func:`load_weights`; the model
    may be on the meta device.
    """
    state = state_dict_of(read_checkpoint(path_of(source)))
    if prefix:
        state = _strip_prefix(state, prefix, source)
    match = match_weights(state, model.state_dict(), allow)
    match.require(source, type(model).__name__)
    return match


def load_weights(
    model: nn.Module,
    source: str,
    prefix: str | None = None,
    allow: Sequence[str] = (),
) -> Match:
    """Load weights into a backbone or a model, and report it.

    Args:
        model: A :class:`TransXNet`, or a classifier, detector or segmentor
            around one.
        source: A ``.pth`` or ``.safetensors`` file, an address
            (``https://``) or a name (``transxnet://b-384``).
        prefix: Use only names with this prefix, and strip it. Not needed for
            the backbone of a complete model.
        allow: Names, or patterns such as ``head.fc.*``, in the file or the
            model, that need not match.

    Returns:
        What was loaded and what was not.

    Raises:
        CheckpointError: The file cannot be downloaded or read, or does not
            match.
    """
    match = match_file(model, source, prefix, allow)
    model.load_state_dict(match.state, strict=False)
    for line in match.report():
        print_log(f'{source}: {line}', 'current', logging.INFO)
    return match


def _strip_prefix(
    state: Mapping[str, Tensor], prefix: str, source: str
) -> dict[str, Tensor]:
    prefix = prefix if prefix.endswith('.') else f'{prefix}.'
    stripped = {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith(prefix)
    }
    if not stripped:
        raise CheckpointError(
            f'checkpoint {source} has no names with the prefix {prefix}, but '
            f'{first_few(list(state))}; leave prefix out'
        )
    return stripped


def save_weights(
    path: str | Path, state: Mapping[str, Tensor], meta: Mapping[str, Any]
) -> None:
    """Write weights and nothing else, atomically.

    Args:
        path: The file, ``.pth`` or ``.safetensors``.
        state: The weights.
        meta: Metadata; strings, or ``dataset_meta`` as in mmengine.

    Raises:
        ValueError: The file has another suffix.
        UserError: It cannot be written.
    """
    path = Path(path)
    if path.suffix not in ('.pth', '.safetensors'):
        raise ValueError(f'{path} must end in .pth or .safetensors')
    # Views would save their entire storage.
    tensors = {
        name: value.detach().cpu().clone().contiguous()
        for name, value in state.items()
    }
    if path.suffix == '.pth':
        buffer = io.BytesIO()
        torch.save(dict(state_dict=tensors, meta=dict(meta)), buffer)
        content = buffer.getvalue()
    else:
        strings = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in meta.items()
        }
        content = safetensors.torch.save(tensors, {'format': 'pt', **strings})
    write_safely(path, content, 'start again')
