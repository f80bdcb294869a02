"""Published weights by name: ``transxnet://b-384``."""

import os
from pathlib import Path
from urllib.error import URLError

import torch

from mmtransxnet.utils.errors import CheckpointError

SCHEME = 'transxnet://'
RELEASE = 'https://github.com/LMMMEng/TransXNet/releases/download/v1.0'
# Environment variable: a directory with the files of the release.
VARIABLE = 'TRANSXNET_WEIGHTS'

_SIZES = dict(t='tiny', s='small', b='base')
FILES = {
    **{size: f'transx-{size}.pth.tar' for size in (*_SIZES, 'b-384')},
    **{
        f'{detector}-{size}': f'{detector}_{word}.pth'
        for detector in ('retinanet', 'maskrcnn')
        for size, word in _SIZES.items()
    },
    **{
        f'sfpn-{size}': f'sfpn_transxnet_{word}.pth'
        for size, word in _SIZES.items()
    },
}


def file_name(name: str) -> str:
    """File name in the release of published weights.

    Args:
        name: For example ``transxnet://maskrcnn-t``.

    Raises:
        CheckpointError: The name is unknown; the message lists all.
    """
    short = name.removeprefix(SCHEME)
    if short not in FILES:
        known = ', '.join(SCHEME + short for short in FILES)
        raise CheckpointError(f'{name} is not published; known are {known}')
    return FILES[short]


def find_weights(name: str) -> Path:
    """Find the file of a name on this machine, or download it.

    Looks in the directory named by ``TRANSXNET_WEIGHTS`` first, then in the
    cache of torch hub, which mmengine uses as well, then downloads from the
    authors' release.

    Args:
        name: For example ``transxnet://b-384``.

    Raises:
        CheckpointError: The name is unknown, ``TRANSXNET_WEIGHTS`` is not a
            directory, or the file is missing and cannot be downloaded.
    """
    file = file_name(name)
    folder = os.environ.get(VARIABLE)
    if folder:
        if not Path(folder).is_dir():
            raise CheckpointError(f'{VARIABLE}={folder} is not a directory')
        path = Path(folder) / file
        if path.is_file():
            return path
    return download(f'{RELEASE}/{file}')


def download(url: str) -> Path:
    """Download a file once, into the cache of torch hub.

    Args:
        url: URL of the file.

    Returns:
        The file on this machine.

    Raises:
        CheckpointError: The download failed; the message says where to put the
            file.
    """
    path = Path(torch.hub.get_dir()) / 'checkpoints' / Path(url).name
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # It writes a temporary file and renames it at the end, so concurrent
        # processes do not interfere.
        torch.hub.download_url_to_file(url, str(path))
    except (URLError, OSError) as error:
        raise CheckpointError(
            f'{url} cannot be fetched ({error}). Fetch it where there is a '
            f'network, and put {path.name} into {path.parent} or into a '
            f'directory that {VARIABLE} names'
        ) from error
    return path
