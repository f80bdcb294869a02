"""Published weights by name: ``transxnet://b-384``."""

import os
from pathlib import Path
from urllib.error import URLError

import torch

from mmtransxnet.utils.errors import CheckpointError

SCHEME = 'transxnet://'
RELEASE = 'https://github.com/LMMMEng/TransXNet/releases/download/v1.0'
# A directory with the files of the release.
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
    """The file of the release that a name stands for.

    Args:
        name: For example ``transxnet://maskrcnn-t``.

    Raises:
        CheckpointError: There is no such name; the message lists all.
    """
    short = name.removeprefix(SCHEME)
    if short not in FILES:
        known = ', '.join(SCHEME + short for short in FILES)
        raise CheckpointError(f'{name} is not published; there are {known}')
    return FILES[short]


def find_weights(name: str) -> Path:
    """Find the file of a name on this machine, or download it.

    The directory named by ``TRANSXNET_WEIGHTS`` comes first, then the cache
    of torch hub, where mmengine downloads to as well, then the authors'
    release.

    Args:
        name: For example ``transxnet://b-384``.

    Raises:
        CheckpointError: There is no such name, ``TRANSXNET_WEIGHTS`` is no
            directory, or the file is not here and cannot be fetched.
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
        url: Where it is.

    Returns:
        The file on this machine.

    Raises:
        CheckpointError: It cannot be had; the message says where to put it.
    """
    path = Path(torch.hub.get_dir()) / 'checkpoints' / Path(url).name
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # It writes a file of its own and renames that at the end, so several
        # processes do not disturb each other.
        torch.hub.download_url_to_file(url, str(path))
    except (URLError, OSError) as error:
        raise CheckpointError(
            f'{url} cannot be fetched ({error}). Fetch it where there is a '
            f'network, and put {path.name} into {path.parent} or into a '
            f'directory that {VARIABLE} names'
        ) from error
    return path
