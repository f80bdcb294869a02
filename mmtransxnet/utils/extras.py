"""Optional packages."""

import importlib
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
