"""Safe loaders for all checkpoints that mmengine opens.

If ``torch.load(weights_only=True)`` refuses a file, the maintained
distribution of mmengine reads it again without the check, and both
distributions read downloads without it: code in a malicious file is executed.
The loaders registered here read local files, downloads and ``transxnet://``
names with :func:`read_checkpoint`, and enforce the check for all other
loaders.
"""

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.runner.checkpoint import CheckpointLoader

from mmtransxnet.models.state_dict import STEM
from mmtransxnet.weights.published import SCHEME, download, find_weights
from mmtransxnet.weights.reader import (
    clear_cache,
    raw_state_dict,
    read_checkpoint,
    state_dict_of,
)

_FORCE = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
_HTTP = ('http://', 'https://')
LOCATED = (SCHEME, *_HTTP)


def install() -> None:
    """Register the loaders with mmengine."""
    for scheme, loader in list(CheckpointLoader._schemes.items()):
        CheckpointLoader.register_scheme(scheme, _forced(loader), force=True)
    for schemes, loader in (
        ('', load_from_local),
        (_HTTP, load_from_http),
        (SCHEME, load_from_transxnet),
    ):
        CheckpointLoader.register_scheme(schemes, loader, force=True)


def path_of(source: str) -> Path:
    """The file on this machine behind a path, an address or a name.

    Args:
        source: A path, ``http(s)://...`` or ``transxnet://...``.

    Raises:
        CheckpointError: It cannot be downloaded, or the name is unknown.
    """
    if source.startswith(SCHEME):
        return find_weights(source)
    if source.startswith(_HTTP):
        return download(source)
    return Path(source)


def load_from_local(filename: str, map_location: Any = None) -> dict:
    """Load a file; see :func:`read_checkpoint`."""
    content = _normal(read_checkpoint(filename, map_location))
    clear_cache()
    return content


def load_from_http(filename: str, map_location: Any = None) -> dict:
    """Load a file from the network, using the cache of torch hub."""
    return load_from_local(str(path_of(filename)), map_location)


def load_from_transxnet(filename: str, map_location: Any = None) -> dict:
    """Load published weights by their name."""
    return load_from_local(str(path_of(filename)), map_location)


def _normal(content: dict[str, Any]) -> dict[str, Any]:
    """Weights of a backbone where mmengine looks for them."""
    if any(name.endswith(STEM) for name in raw_state_dict(content)):
        return {**content, 'state_dict': state_dict_of(content)}
    return content


def _forced(loader: Callable) -> Callable:
    """Wrap a loader so that it reads nothing but weights."""

    @functools.wraps(loader)
    def load(filename: str, map_location: Any = None) -> dict:
        with _weights_only():
            return loader(filename, map_location=map_location)

    return load


@contextmanager
def _weights_only() -> Iterator[None]:
    before = os.environ.get(_FORCE)
    os.environ[_FORCE] = '1'
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FORCE]
        else:
            os.environ[_FORCE] = before
