"""
How much is read of a provider's answer: counted as it leaves the decoder.

A gzip body of 200 kB inflates to 200 MB, and a body need not end. Beyond these bounds reading
stops, the connection is closed, and the attempt fails: an answer as `GarbledAnswer`, an error by
its status alone.
"""

from collections.abc import Callable, Iterable, Iterator

import httpx2

from breakwater.errors import GarbledAnswer
from tasks.providers.http.call_limits import current

MIB = 1024 * 1024
MAX_BODY = 16 * MIB
"""Bytes of a whole answer: 128,000 tokens are about 1 MiB, streamed ten times as much."""
MAX_ERROR = 1 * MIB
"""Bytes of an error's body; real ones have some hundred."""
MAX_EVENT = 1 * MIB
"""Bytes of one server-sent event; the last of OpenAI's Responses holds the whole answer."""
ENCODINGS = "gzip, deflate"
"""What is asked for; httpx2 inflates these in pieces of up to 1 MiB."""
MAX_ENCODINGS = 2
"""One within the other; servers and their proxies apply one each at most."""
_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
"""An empty line ends an event. Source: WHATWG HTML, 9.2.6."""


def bounded(response: httpx2.Response) -> httpx2.Response:
    """Return the response with its body decoded, and read only as far as it may go."""
    headers = response.headers
    at_most = MAX_BODY if response.is_success else MAX_ERROR
    # SDKs look for events in whatever a stream brings, and copy all of one at each read.
    is_of_events = (
        bool(current.timeouts) or "event-stream" in headers.get("content-type", "").lower()
    )
    if not (encoded := headers.get("content-encoding", "").lower()):
        raw = response.stream
        response.stream = _Body(raw, raw.close, at_most, is_of_events=is_of_events)  # type: ignore[union-attr, arg-type]
        return response
    encodings = {each.strip() for each in encoded.split(",")}
    if not encodings <= _KNOWN or encoded.count(",") >= MAX_ENCODINGS:
        response.close()
        if not response.is_success:  # an error is known by its status
            kept = [pair for pair in headers.raw if pair[0].lower() not in _ENCODED]
            return httpx2.Response(response.status_code, headers=kept, content=b"")
        raise GarbledAnswer("the answer is encoded in a way that was not asked for")
    return httpx2.Response(
        response.status_code,
        headers=[pair for pair in headers.raw if pair[0].lower() not in _ENCODED],
        stream=_Body(response.iter_bytes(), response.close, at_most, is_of_events=is_of_events),
        extensions=response.extensions,
    )


_KNOWN = frozenset({"gzip", "deflate", "identity"})
_ENCODED = frozenset({b"content-encoding", b"content-length"})


class _Body(httpx2.SyncByteStream):
    """A body that counts what is read of it."""

    def __init__(
        self,
        pieces: Iterable[bytes],
        close: Callable[[], None],
        at_most: int,
        *,
        is_of_events: bool,
    ) -> None:
        self._pieces = pieces
        self._close = close
        self._at_most = at_most
        self._event = _Event() if is_of_events else None

    def __iter__(self) -> Iterator[bytes]:
        read = 0
        for piece in self._pieces:
            read += len(piece)
            if read > self._at_most:
                raise GarbledAnswer(f"the answer has more than {self._at_most} bytes")
            if self._event and self._event.size_with(piece) > MAX_EVENT:
                raise GarbledAnswer(f"an event of the stream has more than {MAX_EVENT} bytes")
            yield piece

    def close(self) -> None:
        self._close()


class _Event:
    """The server-sent event that is being read."""

    def __init__(self) -> None:
        self._size = 0
        self._end = b""  # the last bytes before, where the next piece may complete an empty line

    def size_with(self, piece: bytes) -> int:
        """Add a piece, and return the size of the longest event that it ends or belongs to."""
        data = self._end + piece
        first = min((at for end in _ENDS if (at := data.find(end)) >= 0), default=-1)
        longest = self._size + (len(piece) if first < 0 else max(0, first - len(self._end)))
        if first >= 0:
            last = max(data.rfind(end) for end in _ENDS)
            self._size = len(data) - last
        else:
            self._size += len(piece)
        self._end = data[-3:]
        return max(longest, self._size)
