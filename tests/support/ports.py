"""Free ports of this machine."""

import socket


def free_port() -> str:
    """A port of this machine that nothing listens to."""
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return str(server.getsockname()[1])
