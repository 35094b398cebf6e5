"""
How the children of a prefork learn of another roles file: from a page they share with the parent.

The parent reads and checks the file, and lays down what it has accepted; a child looks at the
version before each task. Were each child to read the file by itself, one might find it half
written, or newer than what its parent has checked.
"""

import mmap
import os
from hashlib import sha256

from breakwater.config.document import MAX_BYTES

VERSION_LENGTH = 12
"""Hex digits of the SHA-256 that name a roles file."""
_SIZE_LENGTH = 4
_HEADER_LENGTH = VERSION_LENGTH + _SIZE_LENGTH


def version_of(content: bytes) -> str:
    """Name what a roles file holds."""
    return sha256(content).hexdigest()[:VERSION_LENGTH]


class SharedPage:
    """A page that is there before the first child is forked."""

    def __init__(self) -> None:
        self._parent = os.getpid()
        self._page = mmap.mmap(-1, _HEADER_LENGTH + MAX_BYTES)  # takes memory as it is written

    def publish(self, content: bytes) -> None:
        """Let the children find this; it is the parent's to do."""
        self._page[VERSION_LENGTH:_HEADER_LENGTH] = len(content).to_bytes(_SIZE_LENGTH, "big")
        self._page[_HEADER_LENGTH : _HEADER_LENGTH + len(content)] = content
        self._page[:VERSION_LENGTH] = version_of(content).encode()

    def newer(self, version: str) -> bytes | None:
        """
        Return what was laid down last.

        Args:
            version: What this process has already.

        Returns:
            None where there is nothing else, for the parent itself, and in the middle of a change.
        """
        laid = self._page[:VERSION_LENGTH]
        if os.getpid() == self._parent or not laid[0] or laid == version.encode():
            return None
        length = int.from_bytes(self._page[VERSION_LENGTH:_HEADER_LENGTH], "big")
        content = self._page[_HEADER_LENGTH : _HEADER_LENGTH + length]
        return content if version_of(content).encode() == laid else None
