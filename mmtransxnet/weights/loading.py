"""Fill models from weight files, and write such files."""

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
    """Read a file and match it with a model, which stays as it is.

    Arguments, result and errors are those of :func:`load_weights`; the model
    may be on the meta device.
    """
    state = state_dict_of(read_checkpoint(path_of(source)))
    if prefix:
        state = _below(state, prefix, source)
    match = match_weights(state, model.state_dict(), allow)
    match.require(source, type(model).__name__)
    return match


def load_weights(
    model: nn.Module,
    source: str,
    prefix: str | None = None,
    allow: Sequence[str] = (),
) -> Match:
    """Fill a backbone or a whole model, and say what was loaded.

    Args:
        model: A :class:`TransXNet`, or a classifier, detector or segmentor
            around one.
        source: A ``.pth`` or ``.safetensors`` file, an address
            (``https://``) or a name (``transxnet://b-384``).
        prefix: Take only the names of the file that begin so, without it.
            The backbone of a whole model is found without.
        allow: Names, or patterns such as ``head.fc.*``, in the file or the
            model, that need not fit.

    Returns:
        What was loaded and what was not.

    Raises:
        CheckpointError: The file cannot be had or read, or does not fit.
    """
    match = match_file(model, source, prefix, allow)
    model.load_state_dict(match.state, strict=False)
    for line in match.report():
        print_log(f'{source}: {line}', 'current', logging.INFO)
    return match


def _below(
    state: Mapping[str, Tensor], prefix: str, source: str
) -> dict[str, Tensor]:
    prefix = prefix if prefix.endswith('.') else f'{prefix}.'
    found = {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith(prefix)
    }
    if not found:
        raise CheckpointError(
            f'checkpoint {source} has no names that begin with {prefix}, but '
            f'{first_few(list(state))}; leave prefix out'
        )
    return found


def save_weights(
    path: str | Path, state: Mapping[str, Tensor], meta: Mapping[str, Any]
) -> None:
    """Write weights and nothing else, as a whole file or not at all.

    Args:
        path: The file, ``.pth`` or ``.safetensors``.
        state: The weights.
        meta: What is to be known of them; strings, or ``dataset_meta`` as
            mmengine has it.

    Raises:
        ValueError: The file has another ending.
        UserError: It cannot be written.
    """
    path = Path(path)
    if path.suffix not in ('.pth', '.safetensors'):
        raise ValueError(f'{path} must end in .pth or .safetensors')
    # Views of one storage would bring all of it along.
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
