"""
Pass a new roles file to the children of a prefork, in a memory page that they share.

The parent reads and checks the file, and publishes it if there is no fault. A child compares the
version before each task. A child that read the file itself could find it half written, or newer
than the file that its parent has checked.
"""

import mmap
import os
from hashlib import sha256

from breakwater.config.document import MAX_BYTES

VERSION_LENGTH = 12
"""The number of hex digits of the SHA-256 that are the version of a roles file."""
_SIZE_LENGTH = 4
_HEADER_LENGTH = VERSION_LENGTH + _SIZE_LENGTH


def version_of(content: bytes) -> str:
    """Return the version of a roles file with this content."""
    return sha256(content).hexdigest()[:VERSION_LENGTH]


class SharedPage:
    """A memory page of the parent; make it before the first fork."""

    def __init__(self) -> None:
        self._parent = os.getpid()
        self._page = mmap.mmap(-1, _HEADER_LENGTH + MAX_BYTES)  # uses memory only as it is written

    def publish(self, content: bytes) -> None:
        """Publish the content of a roles file to the children; only the parent may."""
        self._page[VERSION_LENGTH:_HEADER_LENGTH] = len(content).to_bytes(_SIZE_LENGTH, "big")
        self._page[_HEADER_LENGTH : _HEADER_LENGTH + len(content)] = content
        self._page[:VERSION_LENGTH] = version_of(content).encode()

    def newer(self, version: str) -> bytes | None:
        """
        Return the content that was published last, if its version is another.

        Args:
            version: The version that this process uses.

        Returns:
            None if there is no other version, in the parent, and in the middle of a change.
        """
        published = self._page[:VERSION_LENGTH]
        if os.getpid() == self._parent or not published[0] or published == version.encode():
            return None
        length = int.from_bytes(self._page[VERSION_LENGTH:_HEADER_LENGTH], "big")
        content = self._page[_HEADER_LENGTH : _HEADER_LENGTH + length]
        if version_of(content).encode() != published:
            return None
        return content
