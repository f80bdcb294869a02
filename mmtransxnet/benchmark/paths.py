"""Where the configs and tools are."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]

# A wheel carries them where mim looks for them.
_SHIPPED = _PACKAGE / '.mim'

# The folder that holds ``configs`` and ``tools``.
ROOT = _SHIPPED if _SHIPPED.is_dir() else _PACKAGE.parent
