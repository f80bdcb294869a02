"""TransXNet for the OpenMMLab packages.

Importing the package is all the set-up there is: mmcv's operators become
available where mmcv was installed without a compiler, and
``type='TransXNet'`` resolves in mmpretrain, mmdet and mmseg.
"""

from mmtransxnet import ops

# Before anything imports mmcv.cnn, which looks for the operators itself.
ops.install()

from mmtransxnet.checkpoint import allow_training_state  # noqa: E402
from mmtransxnet.engine import (  # noqa: E402, F401
    distributed,
    fold,
    optim,
)
from mmtransxnet.models import TransXNet  # noqa: E402
from mmtransxnet.version import __version__  # noqa: E402

allow_training_state()

__all__ = ['TransXNet', '__version__']
