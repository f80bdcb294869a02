"""Distributed runs: process groups, agreements, CPUs, sharded models.

Data parallelism on GPUs is left to mmengine's Runner.
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
from mmengine.dist import get_rank, get_world_size, init_dist
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
    print_error,
)

# Variables of the launchers for torch's RANK, WORLD_SIZE and LOCAL_RANK.
_LAUNCHER_VARIABLES = {
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': (
        'OMPI_COMM_WORLD_RANK',
        'OMPI_COMM_WORLD_SIZE',
        'OMPI_COMM_WORLD_LOCAL_RANK',
    ),
}

# Optimizer wrappers whose loss scaling must handle sharded gradients.
_MIXED_PRECISION = ('AmpOptimWrapper', 'MixedPrecisionOptimWrapper')

# How long processes wait for another that reads, checks or downloads.
_PATIENCE = timedelta(hours=6)

# Numbers the agreements, equally in all processes.
_agreements = itertools.count()

T = TypeVar('T')


@MODEL_WRAPPERS.register_module()
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """Data parallelism between processes on CPUs.

    mmengine's default passes a GPU index to torch. As torch has SyncBN for
    GPUs only, every process uses the statistics of its own samples.

    Args:
        module: The model.
        device_ids: Passed by the Runner; not used.
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
    """Join the process group of a run, on GPUs as mmengine does.

    Without a GPU, where mmengine would select one, gloo is used and the Runner
    is configured accordingly. Must be called before code that only one process
    runs.

    Args:
        config: The run; changed in place.

    Raises:
        UserError: The launcher's variables are not set, or the other processes
            did not join in time.
    """
    if config.launcher == 'none':
        return
    on_cpus = get_device() == 'cpu'
    _export_rank(config.launcher, on_cpus)
    if not dist.is_initialized():
        _choose_interface()
        if on_cpus:
            with _explaining_rendezvous():
                dist.init_process_group('gloo', **_rendezvous())
        else:
            _launch_on_gpus(config)
    if on_cpus:
        config.sync_bn = None
        config.model_wrapper_cfg = dict(
            config.get('model_wrapper_cfg') or {},
            type='CPUDistributedDataParallel',
        )


def _launch_on_gpus(config: Config) -> None:
    """Initialise as mmengine's Runner would do later."""
    environment = config.get('env_cfg') or {}
    set_multi_processing(**environment.get('mp_cfg', {}), distributed=True)
    settings = dict(environment.get('dist_cfg', {}))
    if get_device() == 'cuda' and 'init_backend' not in settings:
        with _explaining_rendezvous():
            settings.update(_rendezvous())
    init_dist(config.launcher, **settings)


def _rendezvous() -> dict[str, Any]:
    """Connect to the first process; return arguments for the group.

    Empty where mmengine finds the first process itself.
    """
    if not {'MASTER_ADDR', 'MASTER_PORT'} <= os.environ.keys():
        return {}
    patience = timedelta(seconds=_patience())
    store, rank, size = next(rendezvous('env://', timeout=patience))
    store.set_timeout(default_pg_timeout)  # later operations may take longer
    return dict(store=store, rank=rank, world_size=size)


def _patience() -> float:
    """Time in seconds that processes wait for each other at the start."""
    return float(os.environ.get('RENDEZVOUS_SECONDS', '600'))


@contextmanager
def _explaining_rendezvous() -> Iterator[None]:
    """Turn a failed rendezvous into an error of one line."""
    try:
        yield
    except (dist.DistError, RuntimeError) as error:
        env = os.environ
        raise UserError(
            f'process {env["RANK"]} of {env["WORLD_SIZE"]} has not met '
            f'the others at {env.get("MASTER_ADDR")}:'
            f'{env.get("MASTER_PORT")} within {_patience():g} s '
            f'(RENDEZVOUS_SECONDS): {in_a_line(error)}. Have all been '
            'started, and are all ports open between their machines?'
        ) from error


def _choose_interface() -> None:
    """Let gloo listen on an interface that other processes can reach.

    By default, it uses the address to which the host name resolves.
    """
    master = os.environ.get('MASTER_ADDR')
    if not master or 'GLOO_SOCKET_IFNAME' in os.environ:
        return
    # The rendezvous reports what is wrong with the address.
    with suppress(OSError, ValueError):
        address = os.environ.get('LOCAL_ADDR') or own_address(master)
        name = interface_of(address)
        if name:
            os.environ['GLOO_SOCKET_IFNAME'] = name


def decided_by_first(decide: Callable[[], T]) -> T:
    """Call a function in the first process and share its result.

    Args:
        decide: Called by the first process alone. Its result is copied to
            the others, so it may read what only the first can access.

    Raises:
        UserError: As ``decide``, if this is the only process.
        SystemExit: ``decide`` failed; the reason is printed in one line.
    """
    result = _run_in_some(decide, get_rank() == 0)
    if get_world_size() == 1:
        return result
    box = [result]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def in_all(work: Callable[[], None]) -> None:
    """Call a function in every process and wait for all.

    Raises:
        UserError: As ``work``, if this is the only process.
        SystemExit: ``work`` failed in any process; the reason is printed in
            one line.
    """
    _run_in_some(work, True)


def in_turn(work: Callable[[], None]) -> None:
    """Call a function once per machine, on the first before the others.

    All others wait, so they find the files that it downloads: the processes of
    the machine always, other machines if they share the file system.

    Raises:
        UserError: As ``work``, if this is the only process.
        SystemExit: ``work`` failed in any process; the reason is printed in
            one line.
    """
    _run_in_some(work, get_rank() == 0)
    _run_in_some(work, get_rank() != 0 and _is_first_of_machine())


def _run_in_some(work: Callable[[], T], active: bool) -> Any:
    """Call a function in some processes; end all processes if it fails."""
    if get_world_size() == 1:
        return work() if active else None
    result, error = None, None
    if active:
        try:
            result = work()
        # Any error must be sent to the other processes.
        except BaseException as failure:
            error = failure
    store = dist.PrefixStore(
        f'agreement {next(_agreements)}', _get_default_store()
    )
    if error is not None:
        store.set('complaint', _error_message(error))
        store.add('failed', 1)
    _wait_for_all(store, 'done')
    if store.add('failed', 0):
        _end_together(store, error)
    return result


def _wait_for_all(store: dist.Store, name: str) -> None:
    """A barrier without a collective and its time limit."""
    if store.add(name, 1) == get_world_size():
        store.set(f'all {name}', '')
    store.wait([f'all {name}'], _PATIENCE)


def _error_message(error: BaseException) -> str:
    if isinstance(error, UserError):
        return line_of(error)
    return f'process {get_rank()} has failed: {in_a_line(error)}'


def _end_together(store: dist.Store, error: BaseException | None) -> None:
    """End all processes, printing one line per machine."""
    complaint = store.get('complaint').decode()
    if _is_first_of_machine():
        print_error(complaint)
    # A launcher stops all processes when the first exits: print before.
    with suppress(dist.DistError):  # the store's process may have exited
        _wait_for_all(store, 'reported')
    if error is not None and not isinstance(error, UserError):
        raise error
    sys.exit(STATUS)


def _is_first_of_machine() -> bool:
    return os.environ.get('LOCAL_RANK', '0') == '0'


@contextmanager
def closing_process_group() -> Iterator[None]:
    """Close the process group when the work ends, including ``sys.exit``.

    gloo's threads end with the last reference to its groups, which the Runner,
    its model and its hooks hold: so the work must run in a separate function,
    whose references are dropped here. A thread that requests Python's lock at
    interpreter exit would abort the process after its work is done.

    After other errors the group is not closed: other processes may wait in a
    collective operation, and closing could block.
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
    if on_cpus:  # on GPUs mmengine supports more ways
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
    """FSDP's wrap policy: shard the blocks of a TransXNet.

    Args:
        module: The module.
        recurse: Whether FSDP asks to recurse into the module.
        nonwrapped_numel: Number of its parameters, not used.
    """
    return recurse or isinstance(module, Block)


def use_fsdp(config: Config) -> None:
    """Train with parameters, gradients and optimizer state sharded.

    Uses mmengine's ``FSDPStrategy`` with one shard per block; checkpoints hold
    the complete model, as without sharding.

    Raises:
        UserError: Without a GPU, or with settings that FSDP does not support.
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
