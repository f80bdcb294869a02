"""Several processes of one run, on this machine."""

import os
import socket
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

# How long a process waits for the others in a collective.
_WAIT_SECONDS = 120


def free_port() -> str:
    """A port of this machine that nothing listens to."""
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return str(server.getsockname()[1])


def run_ranks(work, folder, *arguments, size=2, grouped=True, seconds=600):
    """Run ``work(rank, folder, *arguments)`` in several processes.

    Args:
        work: A function of a module.
        folder: Where the processes meet and leave what they return.
        arguments: More of them, the same for all.
        size: Number of processes.
        grouped: Whether they are a group, of gloo, before ``work``.
        seconds: How long they may take before they are killed.

    Returns:
        What each of them returns, by rank.

    Raises:
        torch.multiprocessing.ProcessRaisedException: One of them failed;
            ProcessExitedException where it was killed.
        TimeoutError: They have not ended in time.
    """
    context = mp.spawn(
        _rank,
        (work, Path(folder), arguments, size, grouped),
        nprocs=size,
        join=False,
    )
    end = time.monotonic() + seconds
    while not context.join(timeout=1):
        if time.monotonic() > end:
            for process in context.processes:
                process.kill()
            raise TimeoutError(f'no end after {seconds} s')
    return [
        torch.load(Path(folder, f'rank{rank}.pt'), weights_only=False)
        for rank in range(size)
    ]


def _rank(rank, work, folder, arguments, size, grouped):
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank)
    )
    if grouped:
        dist.init_process_group(
            'gloo',
            init_method=f'file://{folder}/meet',
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=_WAIT_SECONDS),
        )
    returned = work(rank, folder, *arguments)
    torch.save(returned, folder / f'rank{rank}.pt')
    if grouped:
        dist.destroy_process_group()
