"""Packages that only some functions need."""

import importlib
from types import ModuleType


def import_extra(module: str, package: str) -> ModuleType:
    """Import a module of a package that not everybody installs.

    Args:
        module: Its name.
        package: What pip installs it by.

    Raises:
        ImportError: It is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f'{module} cannot be imported ({error}): pip install {package}'
        ) from error
