"""
Bound how much is read of a provider's answer: bytes are counted as they leave the decoder.

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
"""The encodings that requests accept; httpx2 inflates these in pieces of up to 1 MiB."""
MAX_ENCODINGS = 2
"""One within the other; servers and their proxies apply one each at most."""
_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
"""An empty line ends an event. Source: WHATWG HTML, 9.2.6."""
_KNOWN = frozenset({"gzip", "deflate", "identity"})
_ENCODED = frozenset({b"content-encoding", b"content-length"})


def bounded(response: httpx2.Response) -> httpx2.Response:
    """Return the response with a body that is decoded, and that ends with an error at its bound."""
    headers = response.headers
    is_success = 200 <= response.status_code < 300  # the response's own is_success costs 0.9 us
    at_most = MAX_ERROR
    if is_success:
        at_most = MAX_BODY
    # SDKs look for events in any body of a stream, and copy all of an event at each read.
    has_events = (
        current.timeouts is not None or "event-stream" in headers.get("content-type", "").lower()
    )
    encoded = headers.get("content-encoding", "").lower()
    if not encoded:
        raw = response.stream
        response.stream = _Body(raw, raw.close, at_most, has_events=has_events)  # type: ignore[union-attr, arg-type]
        return response
    kept = [pair for pair in headers.raw if pair[0].lower() not in _ENCODED]
    encodings = {each.strip() for each in encoded.split(",")}
    if not encodings <= _KNOWN or encoded.count(",") >= MAX_ENCODINGS:
        response.close()
        if is_success:
            raise GarbledAnswer("the answer is encoded in a way that was not asked for")
        return httpx2.Response(response.status_code, headers=kept, content=b"")
    return httpx2.Response(
        response.status_code,
        headers=kept,
        stream=_Body(response.iter_bytes(), response.close, at_most, has_events=has_events),
        extensions=response.extensions,
    )


class _Body(httpx2.SyncByteStream):
    """A body that counts the bytes that are read of it."""

    def __init__(
        self,
        pieces: Iterable[bytes],
        close: Callable[[], None],
        at_most: int,
        *,
        has_events: bool,
    ) -> None:
        self._pieces = pieces
        self._close = close
        self._at_most = at_most
        self._event: _Event | None = None
        if has_events:
            self._event = _Event()

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
    """The size of the server-sent event that is being read."""

    def __init__(self) -> None:
        self._size = 0
        self._end = b""  # the last bytes read; the next piece may complete an empty line with them

    def size_with(self, piece: bytes) -> int:
        """Add a piece; return the size of the longest event that ends or grows in it."""
        data = self._end + piece
        ends = [at for end in _ENDS if (at := data.find(end)) >= 0]
        if not ends:
            self._size += len(piece)
            longest = self._size
        else:
            longest = self._size + max(0, min(ends) - len(self._end))
            self._size = len(data) - max(data.rfind(end) for end in _ENDS)
        self._end = data[-3:]
        return max(longest, self._size)
