"""Models with weights that are known by name, and what they give."""

import copy
import zlib
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from mmtransxnet import TransXNet

# Every branch of the network in a second.
MICRO = dict(
    layers=[1, 1, 2, 1],
    embed_dims=[16, 32, 48, 64],
    kernel_size=[7, 7, 7, 7],
    num_groups=[2, 2, 3, 4],
    sr_ratio=[8, 4, 2, 1],
    num_heads=[1, 2, 3, 4],
    mlp_ratios=[4, 4, 3, 2],
)


def micro(**changes) -> dict:
    """A fresh copy of the micro architecture, with ``changes``."""
    return {**copy.deepcopy(MICRO), **changes}


def _draw(name: str, shape: tuple) -> np.ndarray:
    """The value that belongs to the official key ``name``."""
    # RandomState is the one NumPy generator whose stream is frozen, so a
    # name and a shape fix the numbers for good.
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith('num_batches_tracked'):
        return np.zeros(shape)
    if name.endswith('running_mean'):
        return rng.uniform(-0.2, 0.2, shape)
    if name.endswith('running_var'):
        return rng.uniform(0.5, 1.5, shape)
    if 'layer_scale' in name and name.endswith('weight'):
        return rng.uniform(0.1, 0.5, shape)
    if 'relative_pos_enc' in name:
        return 0.5 * rng.standard_normal(shape)
    if len(shape) == 4:
        fan_in = np.prod(shape[1:])
        return rng.standard_normal(shape) / np.sqrt(fan_in)
    if name.endswith('weight'):
        return rng.uniform(0.8, 1.2, shape)
    return 0.05 * rng.standard_normal(shape)


# Most models of the suite are micro ones; drawing takes longer than a step.
_draw_again = lru_cache(maxsize=1024)(_draw)


@torch.no_grad()
def fill_by_name(module: nn.Module) -> nn.Module:
    """Give every parameter and buffer the value its key name stands for."""
    for name, tensor in module.state_dict().items():
        # What is large belongs to a published size, and fills the memory.
        draw = _draw_again if tensor.numel() < 200_000 else _draw
        value = np.asarray(draw(name, tuple(tensor.shape)))
        tensor.copy_(torch.from_numpy(value).to(tensor))
    return module


def micro_model(image_size=64, arch=None, **kwargs) -> TransXNet:
    """A backbone in training mode, the micro one unless ``arch`` is given."""
    return fill_by_name(TransXNet(arch or micro(), image_size, **kwargs))


def make_input(seed: int, shape) -> Tensor:
    """Standard-normal float32 values of ``shape``."""
    values = np.random.RandomState(seed).standard_normal(tuple(shape))
    return torch.from_numpy(values.astype('float32'))


def probe_loss(outs) -> Tensor:
    """The loss of ``backward.npz``: a fixed random projection per output."""
    return sum(
        (out * make_input(100 + i, out.shape).to(out)).mean()
        for i, out in enumerate(outs)
    )


def gradients(module: nn.Module) -> dict:
    """``{name: gradient or None}`` of all parameters, detached copies."""
    return {
        name: None if p.grad is None else p.grad.detach().clone()
        for name, p in module.named_parameters()
    }


def buffers(module: nn.Module) -> dict:
    """``{name: value}`` of all buffers, detached copies."""
    return {n: b.detach().clone() for n, b in module.named_buffers()}
