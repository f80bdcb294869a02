"""Optional packages."""

import importlib
from types import ModuleType


def import_extra(module: str, package: str) -> ModuleType:
    """Import a module of an optional package.

    Args:
        module: Its name.
        package: Name of the package for pip.

    Raises:
        ImportError: It is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f'{module} cannot be imported ({error}): pip install {package}'
        ) from error
