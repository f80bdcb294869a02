"""Optional packages."""

import importlib
import importlib.util
from types import ModuleType

from mmtransxnet.utils.errors import UserError


class MissingPackageError(UserError, ImportError):
    """An optional package is not installed."""


def import_extra(module: str, package: str) -> ModuleType:
    """Import a module of an optional package.

    Args:
        module: Its name.
        package: Name of the package for pip.

    Raises:
        MissingPackageError: It is not installed; the message says what to
            install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f'{module} cannot be imported ({error}): pip install {package}'
        ) from error


def require_openmmlab() -> None:
    """Check that a distribution of OpenMMLab is installed.

    Neither can be a requirement of the package: both install the same modules.

    Raises:
        ModuleNotFoundError: None is; the message says what to install.
    """
    for name in ('mmengine', 'mmcv'):
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(
                f'{name} of OpenMMLab is not installed: pip install '
                "'mmtransxnet[onedl]', or 'mmtransxnet[openmmlab]' for the "
                'original distribution',
                name=name,
            )
