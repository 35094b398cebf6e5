"""
A network of our own, in which nobody else's connections are refused (Linux; namespaces(7)).

A provider that refuses logs nothing; the kernel counts, but for a whole network. Here it is ours.
"""

import ctypes
import fcntl
import socket
import struct
from pathlib import Path

NEW_NETWORK, NEW_USER = 0x4000_0000, 0x1000_0000
SET_FLAGS, UP, RUNNING = 0x8914, 0x1, 0x40


def enter() -> bool:
    """Have this process and those it starts see a loopback of their own; tell whether they do."""
    try:
        unshare = ctypes.CDLL(None, use_errno=True).unshare
        # Root may have a network of its own, anybody else together with a set of users.
        if unshare(NEW_NETWORK) and unshare(NEW_NETWORK | NEW_USER):
            return False
        with socket.socket() as any_socket:
            request = struct.pack("16sh14x", b"lo", UP | RUNNING)
            fcntl.ioctl(any_socket, SET_FLAGS, request)
    except (OSError, AttributeError):  # no Linux, or no leave
        return False
    return True


def refused() -> int:
    """Return how many connections were refused in this network so far (RFC 4022, AttemptFails)."""
    lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
    names, values = (line.split()[1:] for line in lines if line.startswith("Tcp:"))
    return int(dict(zip(names, values, strict=True))["AttemptFails"])
