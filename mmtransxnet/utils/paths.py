"""Where the configs and tools are."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]

# In a wheel, they are where mim looks for them.
_SHIPPED = _PACKAGE / '.mim'

# The folder that holds ``configs`` and ``tools``.
ROOT = _SHIPPED if _SHIPPED.is_dir() else _PACKAGE.parent
