"""The address and the interface by which other machines reach this one.

The host name is not enough: Debian maps it to loopback, and the names of
containers and of many cloud machines do not resolve elsewhere.
"""

import array
import ipaddress
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar('T')

# The network reserved for documentation (RFC 5737), reached through the
# default route if there is one. Nothing is ever sent there.
_ELSEWHERE = '192.0.2.1'


def own_address(peer: str, seconds: float = 0) -> str:
    """The address of this machine on the route to another machine.

    Args:
        peer: Name or address (IPv4, IPv6) of the other machine.
        seconds: How long to wait until the name resolves and the network is
            up.

    Raises:
        OSError: The name does not resolve, or there is no route.
    """
    address = _retry(lambda: _source(peer), seconds)
    named = peer != 'localhost' and not _is_address(peer)
    if named and ipaddress.ip_address(address).is_loopback:
        # The machine's own name, which resolves to loopback only locally.
        try:
            return _source(_ELSEWHERE)
        except OSError:
            return address
    return address


def _source(peer: str) -> str:
    """Source address for a peer; connecting a UDP socket sends nothing."""
    family, kind, _, _, address = socket.getaddrinfo(
        peer, 9, type=socket.SOCK_DGRAM
    )[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)
        return probe.getsockname()[0]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def interface_of(address: str) -> str | None:
    """Name of the interface that has an address, or None.

    Args:
        address: IPv4 or IPv6 address of this machine.
    """
    wanted = ipaddress.ip_address(address)
    names = (name for name, found in _interfaces() if found == wanted)
    return next(names, None)


def _interfaces() -> Iterator[
    tuple[str, ipaddress.IPv4Address | ipaddress.IPv6Address]
]:
    """Interfaces with their addresses, as Linux lists them."""
    listed = Path('/proc/net/if_inet6')
    if listed.is_file():
        for line in listed.read_text().split('\n'):
            if line:
                digits, *_, name = line.split()
                yield name, ipaddress.IPv6Address(bytes.fromhex(digits))
    try:
        import fcntl
    except ImportError:  # not a Unix
        return
    # SIOCGIFCONF: structures of 40 bytes, a name of 16 and an address.
    space = array.array('B', bytes(40 * 256))
    place, _ = space.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(
                probe, 0x8912, struct.pack('iP', len(space), place)
            )
        except OSError:  # a Unix that is not Linux
            return
    length, _ = struct.unpack('iP', answer)
    content = space.tobytes()
    for start in range(0, length, 40):
        name = content[start : start + 16].partition(b'\0')[0].decode()
        four = content[start + 20 : start + 24]
        # A second address has a label behind a colon.
        yield name.partition(':')[0], ipaddress.IPv4Address(four)


def wait_for_port(host: str, port: int, seconds: float) -> None:
    """Wait until a port of another machine answers.

    Args:
        host: Name or address; the name may start to resolve meanwhile.
        port: The port.
        seconds: How long to wait.

    Raises:
        OSError: It did not answer.
    """
    # Within the time limit, and repeatedly where packets are dropped.
    timeout = min(seconds, 10)
    _retry(
        lambda: socket.create_connection((host, port), timeout).close(),
        seconds,
    )


def _retry(attempt: Callable[[], T], seconds: float) -> T:
    """Retry until it succeeds or the time is over."""
    end = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except OSError:
            if time.monotonic() >= end:
                raise
        time.sleep(0.5)
