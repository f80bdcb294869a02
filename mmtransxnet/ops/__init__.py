"""mmcv's operators on torch and torchvision, when mmcv has none compiled.

:func:`install` makes the module ``mmcv._ext`` available. A compiled
extension always comes first: with one, nothing is replaced.
"""

from .extension import install

__all__ = ['install']
