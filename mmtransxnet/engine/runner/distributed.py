"""Several processes: how they meet and agree; CPUs; sharded models.

mmengine's Runner does the rest: data parallelism on GPUs needs nothing here.
"""

import gc
import itertools
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import get_rank, init_dist
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.registry import FUNCTIONS, MODEL_WRAPPERS
from mmengine.utils.dl_utils import set_multi_processing
from torch import nn
from torch.distributed.constants import default_pg_timeout
from torch.distributed.distributed_c10d import _get_default_store
from torch.distributed.rendezvous import rendezvous

from mmtransxnet.engine.runner.network import interface_of, own_address
from mmtransxnet.models.block import Block
from mmtransxnet.utils.errors import (
    STATUS,
    UserError,
    in_a_line,
    line_of,
    tell,
)

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

# How long processes wait for one that reads, checks or downloads.
_PATIENCE = timedelta(hours=6)

# Numbers what processes agree upon, alike in all of them.
_agreements = itertools.count()

T = TypeVar('T')


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


def prepare_launch(config: Config) -> None:
    """Join the other processes of a run, on GPUs as mmengine does.

    Without a GPU, where mmengine would set one, they meet on gloo, and the
    Runner is told so. This comes before whatever only one of them is to do.

    Args:
        config: The run; changed in place.

    Raises:
        UserError: The launcher's variables are not set, or the others have
            not come.
    """
    if config.launcher == 'none':
        return
    on_cpus = get_device() == 'cpu'
    _export_rank(config.launcher, on_cpus)
    if not dist.is_initialized():
        _choose_interface()
        if on_cpus:
            with _naming_the_place():
                dist.init_process_group('gloo', **_meet())
        else:
            _launch_on_gpus(config)
    if on_cpus:
        config.sync_bn = None
        config.model_wrapper_cfg = dict(
            config.get('model_wrapper_cfg') or {},
            type='CPUDistributedDataParallel',
        )


def _launch_on_gpus(config: Config) -> None:
    """What mmengine's Runner would do a little later."""
    environment = config.get('env_cfg') or {}
    set_multi_processing(**environment.get('mp_cfg', {}), distributed=True)
    settings = dict(environment.get('dist_cfg', {}))
    if get_device() == 'cuda' and 'init_backend' not in settings:
        with _naming_the_place():
            settings.update(_meet())
    init_dist(config.launcher, **settings)


def _meet() -> dict[str, Any]:
    """Connect to the first process; return what a group is made from.

    Nothing where mmengine finds out by itself which the first is.
    """
    if not {'MASTER_ADDR', 'MASTER_PORT'} <= os.environ.keys():
        return {}
    patience = timedelta(seconds=_patience())
    store, rank, size = next(rendezvous('env://', timeout=patience))
    store.set_timeout(default_pg_timeout)  # what comes now may take longer
    return dict(store=store, rank=rank, world_size=size)


def _patience() -> float:
    """How long processes wait for each other at the start, in seconds."""
    return float(os.environ.get('RENDEZVOUS_SECONDS', '600'))


@contextmanager
def _naming_the_place() -> Iterator[None]:
    """Say in a line where processes were to meet and did not."""
    try:
        yield
    except (dist.DistError, RuntimeError) as error:
        where = os.environ
        raise UserError(
            f'process {where["RANK"]} of {where["WORLD_SIZE"]} has not met '
            f'the others at {where.get("MASTER_ADDR")}:'
            f'{where.get("MASTER_PORT")} within {_patience():g} s '
            f'(RENDEZVOUS_SECONDS): {in_a_line(error)}. Have all been '
            'started, and are all ports open between their machines?'
        ) from error


def _choose_interface() -> None:
    """Let gloo listen where the other processes can reach it.

    It would take the address that this machine's name has here.
    """
    master = os.environ.get('MASTER_ADDR')
    if not master or 'GLOO_SOCKET_IFNAME' in os.environ:
        return
    # What is wrong with the address, the meeting will tell.
    with suppress(OSError, ValueError):
        address = os.environ.get('LOCAL_ADDR') or own_address(master)
        name = interface_of(address)
        if name:
            os.environ['GLOO_SOCKET_IFNAME'] = name


def decided_by_first(decide: Callable[[], T]) -> T:
    """Let the first process decide for all.

    Args:
        decide: Called by the first process alone. Its result is copied to
            the others, so it may be what only the first can read.

    Raises:
        UserError: As ``decide``, if this is the only process.
        SystemExit: ``decide`` failed, in whichever process; told in a line.
    """
    result = _together(decide, get_rank() == 0)
    if _is_alone():
        return result
    box = [result]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def in_turn(work: Callable[[], None]) -> None:
    """Do something once on each machine, on the first before the others.

    What it fetches is there for the other machines if they share files, and
    for the other processes of a machine in any case: they wait.

    Raises:
        UserError: As ``work``, if this is the only process.
        SystemExit: ``work`` failed, in whichever process; told in a line.
    """
    _together(work, get_rank() == 0)
    _together(work, get_rank() != 0 and _is_first_of_machine())


def _together(work: Callable[[], T], mine: bool) -> Any:
    """Have some processes do something while all wait; end all if it fails."""
    if _is_alone():
        return work() if mine else None
    result, error = None, None
    if mine:
        try:
            result = work()
        # Whatever it is, the others must hear of it.
        except BaseException as failure:
            error = failure
    store = dist.PrefixStore(
        f'agreement {next(_agreements)}', _get_default_store()
    )
    if error is not None:
        store.set('complaint', _complaint(error))
        store.add('failed', 1)
    _wait_for_all(store, 'done')
    if store.add('failed', 0):
        _end_together(store, error)
    return result


def _wait_for_all(store: dist.Store, name: str) -> None:
    """A barrier without a collective, which would have its own time limit."""
    if store.add(name, 1) == dist.get_world_size():
        store.set(f'all {name}', '')
    store.wait([f'all {name}'], _PATIENCE)


def _complaint(error: BaseException) -> str:
    if isinstance(error, UserError):
        return line_of(error)
    return f'process {get_rank()} has failed: {in_a_line(error)}'


def _end_together(store: dist.Store, error: BaseException | None) -> None:
    """End all processes with one line on each machine."""
    complaint = store.get('complaint').decode()
    if _is_first_of_machine():
        tell(complaint)
    # A launcher stops all when the first has ended: not before it is told.
    with suppress(dist.DistError):  # the first, with the store, may be gone
        _wait_for_all(store, 'told')
    if error is not None and not isinstance(error, UserError):
        raise error
    sys.exit(STATUS)


def _is_alone() -> bool:
    return not dist.is_initialized() or dist.get_world_size() == 1


def _is_first_of_machine() -> bool:
    return os.environ.get('LOCAL_RANK', '0') == '0'


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


def _export_rank(launcher: str, on_cpus: bool) -> None:
    """Set torch's variables from the launcher's."""
    targets = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK')
    sources = _LAUNCHER_VARIABLES.get(launcher, targets)
    needed = list(sources)
    if on_cpus:  # on GPUs mmengine knows more ways
        needed += ['MASTER_ADDR', 'MASTER_PORT']
    missing = [name for name in needed if name not in os.environ]
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
