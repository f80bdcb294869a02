"""Several processes on CPUs, and sharded models on GPUs.

mmengine's Runner does the rest: data parallelism on GPUs needs nothing here.
"""

import gc
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.registry import FUNCTIONS, MODEL_WRAPPERS
from torch import nn

from mmtransxnet.engine.errors import UserError
from mmtransxnet.models.transxnet import Block

# Where launchers say what torch reads from RANK, WORLD_SIZE and LOCAL_RANK.
_LAUNCHER_VARIABLES = {
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': (
        'OMPI_COMM_WORLD_RANK',
        'OMPI_COMM_WORLD_SIZE',
        'OMPI_COMM_WORLD_LOCAL_RANK',
    ),
}

# Optimizer wrappers whose loss scaling must know that gradients are sharded.
_MIXED_PRECISION = ('AmpOptimWrapper', 'MixedPrecisionOptimWrapper')


@MODEL_WRAPPERS.register_module()
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """Data parallelism between processes on CPUs.

    mmengine's default hands a GPU's number to torch, and torch has SyncBN
    for GPUs only: every process uses the statistics of its own samples.

    Args:
        module: The model.
        device_ids: The number that the Runner hands over; not used.
        broadcast_buffers: Whether to copy buffers from the first process
            before each forward pass.
        **kwargs: See torch's ``DistributedDataParallel``.
    """

    def __init__(
        self,
        module: nn.Module,
        device_ids: list[int] | None = None,
        broadcast_buffers: bool = False,
        **kwargs: Any,
    ) -> None:
        module = revert_sync_batchnorm(module)
        super().__init__(module, broadcast_buffers=broadcast_buffers, **kwargs)


def is_first_process() -> bool:
    """Whether this is the first process of a run; any launcher."""
    names = ['RANK', *(names[0] for names in _LAUNCHER_VARIABLES.values())]
    return all(os.environ.get(name, '0') == '0' for name in names)


def num_processes(launcher: str) -> int:
    """Number of processes of a run, as its launcher says."""
    if launcher == 'none':
        return 1
    names = _LAUNCHER_VARIABLES.get(launcher, ('RANK', 'WORLD_SIZE'))
    return int(os.environ.get(names[1], '1'))


def prepare_launch(config: Config) -> None:
    """Let the Runner launch without a GPU; with one, change nothing.

    mmengine's own start sets a CUDA device. It is skipped where a process
    group exists, so one on gloo is made here.

    Raises:
        UserError: The launcher's variables are not set.
    """
    if config.launcher == 'none' or get_device() != 'cpu':
        return
    _export_rank(config.launcher)
    dist.init_process_group('gloo')
    config.sync_bn = None
    config.model_wrapper_cfg = dict(
        config.get('model_wrapper_cfg') or {},
        type='CPUDistributedDataParallel',
    )


@contextmanager
def closing_process_group() -> Iterator[None]:
    """Close the process group where the work ends, by ``sys.exit`` or not.

    The threads of gloo end with the last reference to its groups, which the
    Runner, its model and its hooks have: the work must be a function of its
    own, and is forgotten here. A thread that wants Python's lock while
    Python ends would abort the process with its work done.

    Other errors leave all as it is: other processes may wait in a collective
    operation, and closing could wait for them.
    """
    try:
        yield
    except SystemExit as error:
        traceback.clear_frames(error.__traceback__)
        _close_process_group()
        raise
    _close_process_group()


def _close_process_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
        gc.collect()


def _export_rank(launcher: str) -> None:
    """Set torch's variables from the launcher's."""
    targets = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK')
    sources = _LAUNCHER_VARIABLES.get(launcher, targets)
    missing = [name for name in sources if name not in os.environ]
    if missing:
        raise UserError(
            f'--launcher {launcher}: {", ".join(missing)} not set; start with '
            'tools/dist_train.sh or tools/slurm_train.sh'
        )
    for target, source in zip(targets, sources, strict=True):
        os.environ[target] = os.environ[source]


@FUNCTIONS.register_module()
def transxnet_wrap_policy(
    module: nn.Module, recurse: bool, nonwrapped_numel: int
) -> bool:
    """FSDP's question which modules to shard: the blocks of a TransXNet.

    Args:
        module: The module in question.
        recurse: Whether the question is to look inside.
        nonwrapped_numel: Number of its parameters, not used.
    """
    return recurse or isinstance(module, Block)


def use_fsdp(config: Config) -> None:
    """Train with parameters, gradients and optimizer state sharded.

    mmengine's ``FSDPStrategy``, a block a shard; checkpoints hold the whole
    model, as without it.

    Raises:
        UserError: Without a GPU, or with what FSDP cannot do.
    """
    if get_device() == 'cpu':
        raise UserError(
            '--fsdp needs GPUs: torch shards nothing on a CPU. Train without '
            '--fsdp'
        )
    if config.launcher == 'none':
        raise UserError('--fsdp needs a launcher, see tools/dist_train.sh')
    hooks = config.get('custom_hooks') or []
    if any(hook['type'] == 'EMAHook' for hook in hooks):
        raise UserError(
            '--fsdp: the averaged weights of EMAHook cannot be sharded; add '
            '--cfg-options custom_hooks="[]"'
        )
    fsdp_config(config)


def fsdp_config(config: Config) -> None:
    """Write the sharded strategy into a config."""
    config.runner_type = 'FlexibleRunner'
    config.strategy = dict(
        type='FSDPStrategy',
        state_dict_cfg='full',
        sync_bn=config.pop('sync_bn', None),
        model_wrapper=dict(
            type='MMFullyShardedDataParallel',
            use_orig_params=True,
            auto_wrap_policy=dict(type='transxnet_wrap_policy'),
        ),
    )
    if config.optim_wrapper.type in _MIXED_PRECISION:
        config.optim_wrapper.use_fsdp = True
