"""What a user calls from Python."""

from mmtransxnet.apis.inference import Inferencer, Result

__all__ = ['Inferencer', 'Result']
