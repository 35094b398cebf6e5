"""A port for a server of a test's own."""

import socket


def free_port() -> int:
    """Let the system choose: a server that looks for one itself races with its neighbour's."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
