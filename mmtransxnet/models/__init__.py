"""The network, independent of tasks and data sets."""

from mmtransxnet.models import variants  # noqa: F401, registered
from mmtransxnet.models.inference_form import fold
from mmtransxnet.models.transxnet import TransXNet

__all__ = ['TransXNet', 'fold']
