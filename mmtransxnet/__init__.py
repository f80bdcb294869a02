"""TransXNet for the OpenMMLab packages.

Importing the package is the only set-up: mmcv's operators become available
where mmcv was installed without a compiler, ``type='TransXNet'`` resolves in
mmpretrain, mmdet and mmseg, and checkpoints are read safely, including
``transxnet://`` names.
"""

from mmtransxnet.utils.extras import require_openmmlab
from mmtransxnet.utils.waiting_threads import sleeping_if_busy

require_openmmlab()

# The first import of torch, in programs that have not imported it before.
with sleeping_if_busy():
    from mmtransxnet import ops

# Before anything imports mmcv.cnn, which looks for the operators itself.
ops.install()

# The engine registers hooks, loops and schedules.
from mmtransxnet import engine, weights  # noqa: E402, F401
from mmtransxnet.models import TransXNet  # noqa: E402
from mmtransxnet.version import __version__  # noqa: E402

# mmengine's own loaders would execute code in a malicious file.
weights.install()

__all__ = ['TransXNet', '__version__']
