"""The Python interface."""

from mmtransxnet.apis.inference import Inferencer, Result

__all__ = ['Inferencer', 'Result']
