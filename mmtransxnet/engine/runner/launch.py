"""torchrun with a given order of machines.

Machines connect by address instead of name, get ranks in the order of
NODE_RANK, and print one line if the rendezvous fails.
"""

import os
import sys
import time
from datetime import timedelta
from typing import NamedTuple, NoReturn

from torch.distributed import (
    DistError,
    PrefixStore,
    TCPStore,
    run,
)
from torch.distributed.elastic.rendezvous import (
    RendezvousClosedError,
    RendezvousError,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    RendezvousTimeoutError,
    rendezvous_handler_registry,
)
from torch.distributed.elastic.rendezvous.c10d_rendezvous_backend import (
    C10dRendezvousBackend,
)
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import (
    DynamicRendezvousHandler,
    RendezvousTimeout,
)

from mmtransxnet.engine.runner.network import own_address, wait_for_port

_NAME = 'by-node-rank'

# Time limit for an answer of the store, as in torchrun.
_ANSWER_SECONDS = 60

# How long a machine that ends leaves the others to read why.
_READ_SECONDS = 10


class Place(NamedTuple):
    """This machine's place among the machines of the run.

    Attributes:
        machines: Number of machines.
        rank: Index of this machine.
        host: Name or address of the first machine.
        port: Port of the first machine for the rendezvous.
        patience: How long the machines wait for each other, in seconds.
    """

    machines: int
    rank: int
    host: str
    port: int
    patience: int

    def __str__(self) -> str:
        host = f'[{self.host}]' if ':' in self.host else self.host
        return f'{host}:{self.port}'


class Handler(DynamicRendezvousHandler):
    """torchrun's rendezvous, with machines numbered by NODE_RANK.

    torchrun numbers them by the text of their addresses, so the process that
    writes the checkpoints could be anywhere.
    """

    place: Place
    _rounds = 0

    def get_backend(self) -> str:
        """Name in torchrun's registry."""
        return _NAME

    def next_rendezvous(self) -> RendezvousInfo:
        """Run a rendezvous, the first or after a restart."""
        met = super().next_rendezvous()
        store = PrefixStore('by-node-rank', met.store)
        rank = self.place.rank
        store.set(str(met.rank), str(rank))
        ranks = [int(store.get(str(n))) for n in range(met.world_size)]
        store.add('readers', 1)
        if len(set(ranks)) < len(ranks):
            if rank == 0:
                # The store ends with this process.
                _wait_for_readers(store, met.world_size)
            raise RendezvousError(
                f'NODE_RANK must differ between machines, not be {ranks}'
            )
        # Unlike torchrun's count of restarts, this includes restarts after a
        # machine disappeared.
        self._rounds += 1
        os.environ['RENDEZVOUS_ROUND'] = str(self._rounds)
        return RendezvousInfo(
            met.store,
            rank,
            met.world_size,
            RendezvousStoreInfo.build(rank, store, self._this_node.addr),
        )


def _wait_for_readers(store: PrefixStore, number: int) -> None:
    """Wait until all machines have read the ranks, for some seconds."""
    end = time.monotonic() + _READ_SECONDS
    while store.add('readers', 0) < number and time.monotonic() < end:
        time.sleep(0.05)


def meet(parameters: RendezvousParameters) -> Handler:
    """Connect to the first machine, or serve as the first machine.

    Raises:
        RendezvousError: It does not answer in time, or the port is taken.
    """
    place = place_of_this_machine()
    if place.rank > 0:
        try:
            wait_for_port(place.host, place.port, place.patience)
        except OSError as error:
            raise RendezvousError(
                f'no answer within {place.patience} s (RENDEZVOUS_SECONDS): '
                f'{error}. Has the machine with NODE_RANK=0 been started, '
                'and is its port open?'
            ) from error
    try:
        store = TCPStore(
            place.host,
            place.port,
            is_master=place.rank == 0,
            multi_tenant=True,
            timeout=timedelta(seconds=_ANSWER_SECONDS),
        )
    except DistError as error:
        reason = str(error).partition('\n')[0]
        raise RendezvousError(
            f'{reason}. Is the port free (PORT), and MASTER_ADDR an address '
            'of the machine with NODE_RANK=0?'
        ) from error
    handler = Handler.from_backend(
        parameters.run_id,
        store,
        C10dRendezvousBackend(store, parameters.run_id),
        place.machines,
        place.machines,
        parameters.local_addr,
        RendezvousTimeout(join=timedelta(seconds=place.patience)),
    )
    handler.place = place
    return handler


def number(name: str, default: int, minimum: int) -> int:
    """Read an integer from the environment."""
    text = os.environ.get(name) or str(default)
    if not text.isdecimal() or int(text) < minimum:
        fail(f'{name}={text}: expected an integer of at least {minimum}')
    return int(text)


def place_of_this_machine() -> Place:
    """Read the place of this machine from the environment."""
    machines = number('NNODES', 1, 1)
    host = os.environ.get('MASTER_ADDR')
    if machines == 1:
        # A single machine need not be reachable by others.
        host = host or '127.0.0.1'
    if not host:
        fail(
            f'NNODES={machines}: MASTER_ADDR must be the address of the '
            'machine with NODE_RANK=0'
        )
    place = Place(
        machines,
        number('NODE_RANK', 0, 0),
        host,
        number('PORT', 29500, 1),
        number('RENDEZVOUS_SECONDS', 600, 1),
    )
    if place.rank >= machines:
        fail(f'NODE_RANK={place.rank} must be below NNODES={machines}')
    return place


def address_of_this_machine(place: Place) -> str:
    """Address by which the other machines reach this one."""
    given = os.environ.get('LOCAL_ADDR')
    if given:
        return given
    try:
        return own_address(place.host, place.patience)
    except OSError as error:
        fail(
            f'MASTER_ADDR={place.host}: not reachable within {place.patience} '
            f's (RENDEZVOUS_SECONDS): {error}. LOCAL_ADDR may set the '
            'address of this machine'
        )


def fail(message: str) -> NoReturn:
    """Print an error in one line and exit."""
    sys.stderr.write(f'error: {message}\n')
    sys.exit(1)


def explain(error: Exception, place: Place) -> str:
    """Explain in one line why the rendezvous failed."""
    if isinstance(error, RendezvousTimeoutError):
        return (
            f'{place}: {place.machines} machines have not met within '
            f'{place.patience} s (RENDEZVOUS_SECONDS); one has not been '
            'started, or cannot reach this address'
        )
    if isinstance(error, RendezvousClosedError):
        return f'{place}: the run has ended on another machine'
    return f'{place}: {" ".join(str(error).split())}'


def launch(processes: str, tool: str, arguments: list[str]) -> None:
    """Start a tool in several processes, by torchrun.

    The number of machines and the rank of this one are read from the
    environment variables that tools/dist_train.sh lists.

    Args:
        processes: Number of processes on this machine, or another value that
            torchrun accepts, such as ``'gpu'``.
        tool: File of the tool.
        arguments: Arguments of the tool.

    Raises:
        SystemExit: The rendezvous failed; the reason is printed in one line.
    """
    place = place_of_this_machine()
    rendezvous_handler_registry.register(_NAME, meet)
    # Restarted processes must not find the addresses of dead ones in a store
    # that torchrun shares with them.
    os.environ['TORCH_DISABLE_SHARE_RDZV_TCP_STORE'] = '1'
    # As torchrun's flags of the same name, which older versions lack.
    os.environ['PET_SIGNALS_TO_HANDLE'] = (
        'SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1'
    )
    os.environ['PET_SHUTDOWN_TIMEOUT'] = str(number('GRACE_SECONDS', 120, 0))
    flags = {
        'nnodes': place.machines,
        'rdzv-backend': _NAME,
        'rdzv-id': f'transxnet-{place.port}',
        'rdzv-endpoint': str(place),
        'local-addr': address_of_this_machine(place),
        'nproc-per-node': processes,
        'max-restarts': number('MAX_RESTARTS', 0, 0),
    }
    try:
        run.main(
            [f'--{name}={value}' for name, value in flags.items()]
            + [tool, *arguments]
        )
    except (RendezvousError, DistError) as error:
        fail(explain(error, place))
