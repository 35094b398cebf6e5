"""Streams: the pieces, the whole they make, and every way in which one does not end well."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from breakwater import errors
from breakwater.content import Delta, TextDelta
from breakwater.errors import ProviderError
from simulator.client import Simulator
from tasks.providers.http import transport
from tests.providers.conftest import Build
from tests.providers.test_faults import FAULTS, SLOW
from tests.providers.test_transport import in_flight, listening, wait_until
from tests.support.loopback import Loopback
from tests.support.vendors import request

FIRST = {
    "anthropic": b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","type":'
    b'"message","role":"assistant","model":"m-1","content":[],"usage":{"input_tokens":1,'
    b'"output_tokens":1}}}\n\nevent: content_block_start\ndata: {"type":"content_block_start",'
    b'"index":0,"content_block":{"type":"text","text":""}}\n\n',
    "openai": b'event: response.created\ndata: {"type":"response.created","sequence_number":0,'
    b'"response":{"id":"r","output":[]}}\n\n',
    "openai-chat": b'data: {"id":"c","model":"m-1","choices":[{"index":0,"delta":{"role":'
    b'"assistant","content":""}}]}\n\n',
    "google": b"",
}
"""How each vendor's stream opens, before anything is said."""
WORD = {
    "anthropic": b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"hi "}}\n\n',
    "openai": b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta",'
    b'"sequence_number":1,"output_index":0,"content_index":0,"item_id":"m","delta":"hi "}\n\n',
    "openai-chat": b'data: {"id":"c","model":"m-1","choices":[{"index":0,"delta":{"content":'
    b'"hi "}}]}\n\n',
    "google": b'data: {"candidates":[{"content":{"role":"model","parts":[{"text":"hi "}]}}]}\n\n',
}
THOUGHT = {
    "anthropic": b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"thinking_delta","thinking":"hm"}}\n\n',
    "openai": b'event: response.reasoning_summary_text.delta\ndata: {"type":'
    b'"response.reasoning_summary_text.delta","sequence_number":1,"output_index":0,'
    b'"summary_index":0,"item_id":"m","delta":"hm"}\n\n',
    "openai-chat": b'data: {"id":"c","model":"m-1","choices":[{"index":0,"delta":'
    b'{"reasoning_content":"hm"}}]}\n\n',
    "google": b'data: {"candidates":[{"content":{"role":"model","parts":[{"text":"hm",'
    b'"thought":true}]}}]}\n\n',
}
ALIVE = {
    "anthropic": b'event: ping\ndata: {"type":"ping"}\n\n',
    "openai": b": keep-alive\n\n",
    "openai-chat": b": keep-alive\n\n",
    "google": b": keep-alive\n\n",
}


@contextmanager
def speaking(*said: bytes, then: bytes | None = None, hangs_up: bool = False) -> Iterator[str]:
    """Serve streams that say this, then `then` each 20 ms, or nothing; none of them ends well."""

    def talk(peer: socket.socket) -> None:
        peer.recv(65536)
        head, body = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n", b"".join(said)
        if hangs_up:  # before the chunk that would end the body
            peer.sendall(
                b"%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (head, len(body), body)
            )
            return
        peer.sendall(head + b"\r\n" + body)
        over = threading.Event()
        peer.settimeout(0.02)
        while not over.is_set():
            try:
                if peer.recv(1) == b"":
                    over.set()
            except TimeoutError:
                if then:
                    peer.sendall(then)

    with listening(talk) as address:
        yield f"http://{address}"


def texts(heard: list[Delta]) -> list[str]:
    """Return the pieces of text."""
    return [delta.text for delta in heard if isinstance(delta, TextDelta)]


def test_a_stream_hands_over_its_pieces_and_returns_the_whole(
    adapter: str, simulator: Simulator, label: str, build: Build
) -> None:
    """Text, counts, ids and finish are those of a plain call."""
    counts = {"input_tokens": 100, "output_tokens": 50, "cached_input_tokens": 40}
    simulator.settings(label, answer="one two three four", usage=counts)
    provider = build(adapter, simulator.url(label))
    heard: list[Delta] = []

    streamed = provider.complete(request(on_delta=heard.append))

    plain = provider.complete(request())
    assert len(heard) > 1
    assert "".join(texts(heard)) == streamed.text == plain.text == "one two three four"
    assert (streamed.finish_reason, streamed.model) == (plain.finish_reason, plain.model)
    assert streamed.usage == plain.usage
    assert streamed.usage.cached_input_tokens == 40
    hit = simulator.hits(label)[0]
    if adapter != "google":  # has no id in its headers
        assert streamed.request_id == hit["request_id"]
    assert streamed.response_id


@pytest.mark.parametrize("kind", sorted(FAULTS.keys() - {"trickle"}))
def test_each_fault_in_a_stream_is_the_same_error_as_in_a_plain_call(
    kind: str, adapter: str, simulator: Simulator, label: str, build: Build
) -> None:
    """And never a success, however much was said before."""
    provider = build(adapter, simulator.url(label))
    simulator.fault(label, kind)
    names = {FAULTS[kind][0]}
    if kind in {"html", "garbage", "empty", "wrong_shape"}:
        names.add("TruncatedAnswer")  # no event at all looks like a stream that was cut at once

    with pytest.raises(ProviderError) as caught:
        provider.complete(request(timeout_s=2 if kind in SLOW else 180, on_delta=lambda _: None))

    assert type(caught.value).__name__ in names
    assert str(caught.value).startswith(f"my-{adapter}")
    assert str(caught.value).count(f"my-{adapter}") == 1
    assert caught.value.__cause__ is None


def test_what_was_said_before_the_cut_was_handed_over(
    adapter: str, simulator: Simulator, label: str, build: Build
) -> None:
    """The SDKs take the clean end of a cut stream for its end."""
    simulator.settings(label, answer="one two three four five six seven eight")
    simulator.fault(label, "cut")
    heard: list[Delta] = []

    with pytest.raises(errors.TruncatedAnswer):
        build(adapter, simulator.url(label)).complete(request(on_delta=heard.append))

    assert heard


def test_a_stream_without_its_first_token_in_time_is_a_timeout(adapter: str, build: Build) -> None:
    """The opening events are none."""
    with (
        speaking(FIRST[adapter], then=ALIVE[adapter]) as url,
        pytest.raises(errors.ProviderTimeout, match=r"no token within 0\.3 s"),
    ):
        build(adapter, url).complete(request(on_delta=lambda _: None, first_token_s=0.3))


def test_a_stream_that_falls_silent_is_a_timeout(adapter: str, build: Build) -> None:
    """Keep-alives are no tokens."""
    heard: list[Delta] = []
    asked = request(on_delta=heard.append, first_token_s=180, between_tokens_s=0.3)

    with (
        speaking(FIRST[adapter], WORD[adapter], then=ALIVE[adapter]) as url,
        pytest.raises(errors.ProviderTimeout, match=r"no token within 0\.3 s"),
    ):
        build(adapter, url).complete(asked)

    assert texts(heard) == ["hi "]


def test_reasoning_is_a_sign_of_life_and_no_text(adapter: str, build: Build) -> None:
    """A model that thinks for long is not silent: only the whole call's time ends it."""
    heard: list[Delta] = []
    asked = request(
        on_delta=heard.append, timeout_s=4, first_token_s=2.5, between_tokens_s=2.5
    )  # fmt: skip

    with (
        speaking(FIRST[adapter], then=THOUGHT[adapter]) as url,
        pytest.raises(errors.ProviderTimeout, match="no whole answer in time"),
    ):
        build(adapter, url).complete(asked)

    assert heard == []


@pytest.mark.parametrize("after", ["silence", "hanging up"])
@pytest.mark.parametrize("adapter", ["anthropic", "openai", "openai-chat"])
def test_an_answer_that_is_whole_is_not_lost_with_its_connection(
    after: str, adapter: str, simulator: Simulator, label: str, build: Build
) -> None:
    """It has to be paid; its own last event came, so what the connection does changes nothing."""
    said = simulated(simulator.url(label), adapter, build)

    with speaking(said, hangs_up=after == "hanging up") as url:
        completion = build(adapter, url).complete(request(on_delta=lambda _: None))

    assert completion.text
    assert completion.finish_reason == "stop"


EARLY = {
    "openai-chat": b'data: {"id":"c","model":"m-1","choices":[{"index":0,"delta":{"content":'
    b'"hi "},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n',
    "google": b'data: {"candidates":[{"content":{"parts":[{"text":"hi "}]},"finishReason":"STOP"}],'
    b'"usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":1}}\n\n',
    "anthropic": FIRST["anthropic"] + WORD["anthropic"] + b'event: message_delta\ndata: {"type":'
    b'"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":1}}\n\n',
}
"""A text and why it ended, but not the end of the stream."""


@pytest.mark.parametrize("adapter", sorted(EARLY))
def test_a_finish_reason_is_not_the_end_of_a_stream(adapter: str, build: Build) -> None:
    """Gemini and gateways send one in every chunk: what breaks off after it is cut."""
    heard: list[Delta] = []

    with (
        speaking(EARLY[adapter], hangs_up=True) as url,
        pytest.raises((errors.TruncatedAnswer, errors.ConnectionFailed)),
    ):
        build(adapter, url).complete(request(on_delta=heard.append))

    assert texts(heard) == ["hi "]


@pytest.mark.parametrize("adapter", sorted(EARLY))
def test_silence_after_a_finish_reason_is_a_timeout(adapter: str, build: Build) -> None:
    """For as long as text may still come, the stream has the pace of any other."""
    asked = request(on_delta=lambda _: None, first_token_s=20, between_tokens_s=0.3)

    with (
        speaking(EARLY[adapter]) as url,
        pytest.raises(errors.ProviderTimeout, match=r"no token within 0\.3 s"),
    ):
        build(adapter, url).complete(asked)


def simulated(url: str, adapter: str, build: Build) -> bytes:
    """Return the bytes of a good stream, but for `[DONE]`: the counts before it are the last."""
    provider: Any = build(adapter, url)
    sent: list[bytes] = []
    read = transport._PooledConnection.read

    def keeping(line: Any, max_bytes: int, timeout: float | None = None) -> bytes:
        sent.append(read(line, max_bytes, timeout))
        return sent[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transport._PooledConnection, "read", keeping)
        provider.complete(request(on_delta=lambda _: None))
    _, _, body = b"".join(sent).partition(b"\r\n\r\n")
    return re.sub(rb"(?m)^[0-9a-f]+\r\n", b"", body).replace(b"data: [DONE]\n\n", b"")


def test_a_listener_that_fails_ends_the_stream_with_its_own_error(
    adapter: str, build: Build
) -> None:
    """It is none of the provider's failures, and the connection is closed."""

    class GoneError(Exception):
        pass

    def listener(_: Delta) -> None:
        raise GoneError

    with speaking(FIRST[adapter], then=WORD[adapter]) as url:
        provider: Any = build(adapter, url)

        with pytest.raises(GoneError):
            provider.complete(request(on_delta=listener))

        wait_until(lambda: in_flight(provider) == 0, "the call is over")


def test_a_plain_call_after_a_stream_is_held_to_no_pace(
    adapter: str, simulator: Simulator, label: str, build: Build
) -> None:
    """The pace is the stream's alone, also in the same thread."""
    provider = build(adapter, simulator.url(label))
    provider.complete(request(on_delta=lambda _: None, first_token_s=180, between_tokens_s=1))
    simulator.settings(label, latency=1.5)

    completion = provider.complete(request())

    assert completion.finish_reason == "stop"


def test_a_stream_can_be_ended_from_another_thread(adapter: str, build: Build) -> None:
    """Shutdown, a revoked task and a lost lease end it at once, as Cancelled."""
    begun = threading.Event()
    me = threading.get_ident()

    def end() -> None:
        begun.wait(180)
        wait_until(lambda: transport.abort(me), "the call is in flight")

    ending = threading.Thread(target=end)
    ending.start()
    with speaking(FIRST[adapter], WORD[adapter]) as url, pytest.raises(errors.Cancelled):
        build(adapter, url).complete(request(on_delta=lambda _: begun.set()))
    ending.join()


def of_events(*events: dict[str, Any]) -> bytes:
    """Return a stream of these, as Server-Sent Events; Google's have no names."""
    named = ((f"event: {event['type']}\n" if "type" in event else "", event) for event in events)
    return "".join(f"{name}data: {json.dumps(event)}\n\n" for name, event in named).encode()


PART = {"type": "output_text", "text": "hush", "annotations": {"quoted": "hush"}}
MESSAGE = {"type": "message", "id": "m", "role": "assistant", "content": [PART]}
BLOCK = {"type": "text", "text": "hush", "citations": {"quoted": "hush"}}
SHAPELESS = {
    "openai": [
        {"type": "response.completed", "sequence_number": 1,
         "response": {"id": "r", "model": "m-1", "status": "completed", "output": [MESSAGE]}},
    ],
    "anthropic": [
        {"type": "message_start", "message": {
            "id": "r", "type": "message", "role": "assistant", "model": "m-1", "content": [],
            "usage": {"input_tokens": 1, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": BLOCK},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}},
        {"type": "message_stop"},
    ],
}  # fmt: skip


@pytest.mark.parametrize("adapter", sorted(SHAPELESS))
def test_a_stream_of_another_shape_is_not_quoted(
    adapter: str, server: Loopback, build: Build, recwarn: pytest.WarningsRecorder
) -> None:
    """A model that something does not fit would be warned of on stderr, word by word."""
    server.answer(of_events(*SHAPELESS[adapter]), content_type="text/event-stream")

    answer = build(adapter, server.url).complete(request(on_delta=lambda _: None))

    assert answer.text == "hush"
    assert not [str(each.message) for each in recwarn if "hush" in str(each.message)]


def test_a_cut_stream_that_never_spoke_of_a_reason_is_cut(server: Loopback, build: Build) -> None:
    """Anthropic begins with `stop_reason: null`; some that imitate it leave it out."""
    server.answer(of_events(*SHAPELESS["anthropic"][:2]), content_type="text/event-stream")

    with pytest.raises(errors.TruncatedAnswer):
        build("anthropic", server.url).complete(request(on_delta=lambda _: None))


@pytest.mark.parametrize("stream", [False, True])
def test_googles_signature_comes_in_one_alphabet(
    stream: bool, server: Loopback, build: Build
) -> None:
    """Base64 has two; it comes back as it was sent."""
    call = {"functionCall": {"name": "add", "args": {}}, "thoughtSignature": "+/8="}
    told = {"candidates": [{"content": {"parts": [call]}, "finishReason": "STOP"}]}
    if stream:
        server.answer(of_events(told), content_type="text/event-stream")
    else:
        server.answer(told)

    asked = request(on_delta=(lambda _: None) if stream else None)

    assert build("google", server.url).complete(asked).tool_calls[0].signature == "+/8="
