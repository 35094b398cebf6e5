"""A port for a server of a test's own."""

import random
import socket
from contextlib import suppress

OURS = range(10_000, 32_000)
"""Below the ports that systems give to outgoing connections, which would take one in between."""


def free_port() -> int:
    """Return a port that nobody listens on."""
    while True:
        port = random.SystemRandom().choice(OURS)
        with suppress(OSError), socket.socket() as taken:
            taken.bind(("127.0.0.1", port))
            return port
