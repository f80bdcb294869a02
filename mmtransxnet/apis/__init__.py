"""The Python interface."""

from mmtransxnet.apis.inference import Inferencer
from mmtransxnet.apis.results import Result
from mmtransxnet.utils.allocator import keep_freed_memory

__all__ = ['Inferencer', 'Result', 'keep_freed_memory']
