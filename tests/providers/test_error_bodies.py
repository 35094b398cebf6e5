"""
What real servers answer when they refuse: each line of `data/error_bodies.jsonl`, through an SDK.

A line has the server, the HTTP status, the body (JSON, or a string that goes out as it is), the
class it must become, and where it was seen or is documented; `adapter` and `headers` where they
are not those of an OpenAI-compatible server (a stream's events are a string). Ids, names and amounts are replaced.
"""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from breakwater import errors
from breakwater.errors import ProviderError
from tasks.providers.base import Provider
from tests.support.error_table import bodies, table, written
from tests.support.vendors import provider_for, request

BODIES = bodies()
PLAIN = ("openai-chat", "openai", "anthropic")
"""Adapters that a body is sent through beside its own: the table is one for all of them."""


class Answers(httpx2.BaseTransport):
    """The wire under an SDK: it answers what the test says, and counts."""

    def __init__(self) -> None:
        self.row: dict[str, Any] = {}
        self.asked = 0

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer the row."""
        self.asked += 1
        body = self.row["body"]
        text = body if isinstance(body, str | bytes) else json.dumps(body)
        content = text if isinstance(text, bytes) else text.encode()
        headers = {"content-type": "application/json", **self.row.get("headers", {})}
        return httpx2.Response(self.row["status"], headers=headers, content=content)


@pytest.fixture(scope="module")
def wire() -> Answers:
    """One for all adapters of this module."""
    return Answers()


@pytest.fixture(scope="module")
def providers(wire: Answers) -> Iterator[dict[str, Provider]]:
    """Each adapter with its SDK, over the wire."""
    built = {name: provider_for(name, "http://server.invalid") for name in (*PLAIN, "google")}
    for provider in built.values():
        provider._transport.handle_request = wire.handle_request  # type: ignore[attr-defined]
    yield built
    for provider in built.values():
        provider.close()


def valid_tool_name(row: dict[str, Any]) -> str:
    body = row["body"] if isinstance(row["body"], str) else json.dumps(row["body"])
    return f"{row['server']}-{row['status']}-{body[:40]}"


@pytest.mark.parametrize("row", BODIES, ids=valid_tool_name)
def test_what_a_server_says_becomes_the_right_error(
    row: dict[str, Any], wire: Answers, providers: dict[str, Provider]
) -> None:
    """Through its own SDK, and through the others: one table reads all of them."""
    wire.row = row
    own = row.get("adapter", "openai-chat")
    is_stream = "event-stream" in row.get("headers", {}).get("content-type", "")
    streamed: dict[str, Any] = {"on_delta": lambda _: None} if is_stream else {}
    for adapter in dict.fromkeys((own, *(PLAIN if row["status"] >= 300 else ()))):
        before = wire.asked

        with pytest.raises(ProviderError) as caught:
            providers[adapter].complete(request(**streamed))

        assert (adapter, type(caught.value).__name__) == (adapter, row["expect"])
        assert wire.asked == before + 1, "the SDK must not retry on its own"


def test_no_unknown_4xx_ends_the_chain_or_counts_against_the_provider() -> None:
    """Whatever the words: unknown means the next target, and no breaker hears of it."""
    for row in BODIES:
        verdict = getattr(errors, row["expect"]).verdict
        assert verdict.next_target
        if 400 <= row["status"] < 500 and row["expect"] in {
            "InvalidRequest", "UnsupportedInput", "UnknownError", "ContextWindowExceeded",
            "ContentFiltered", "ModelNotFound", "HostFault",
        }:  # fmt: skip
            assert not verdict.trips
            assert not verdict.trips_at_once


def test_each_line_says_where_it_comes_from() -> None:
    """A body without a source is nobody's."""
    assert len(BODIES) >= 150
    assert all(row["source"] and row["server"] for row in BODIES)
    seen = [(r["server"], r["status"], json.dumps(r["body"]), r.get("adapter")) for r in BODIES]
    assert len(set(seen)) == len(seen), "a line is there twice"


def test_the_docs_have_a_row_for_each_server() -> None:
    """`python -m tests.support.error_table` writes it anew."""
    assert written() == table()


WINDOW = "This model's maximum context length is 4096 tokens."
SHAPES: dict[str, object] = {
    "nested": {"error": {"message": WINDOW}},
    "flat": {"object": "error", "message": WINDOW, "code": 400},
    "a string under error": {"error": WINDOW, "code": "x"},
    "a list under error": {"error": [WINDOW]},
    "a list of errors": {"errors": [{"message": WINDOW}]},
    "a list of strings": {"errors": [WINDOW]},
    "a list around it": [{"error": {"message": WINDOW}}],
    "a list of two": [{"error": {}}, {"error": {"message": WINDOW}}],
    "a string": json.dumps(WINDOW),
    "detail, a string": {"detail": WINDOW},
    "detail, a list": {"detail": [{"loc": ["body", "messages"], "msg": WINDOW, "type": "x"}]},
    "detail, an object": {"detail": {"error": {"message": WINDOW}}},
    "an object under message": {"message": {"error": {"message": WINDOW}}},
    "in other capitals": {"Error": {"Message": WINDOW}},
    "error inside data": {"data": {"error": {"message": WINDOW}}},
    "error_msg": {"error_code": 336103, "error_msg": WINDOW},
    "msg beside code": {"code": 400, "msg": WINDOW, "data": None},
    "fault": {"fault": {"faultstring": WINDOW, "detail": {"errorcode": "x"}}},
    "base_resp": {"base_resp": {"status_code": 1039, "status_msg": WINDOW}},
    "JSON in a message": {"error": {"message": json.dumps({"error": {"message": WINDOW}})}},
    "JSON behind words": {"message": "X - " + json.dumps({"error": {"message": WINDOW}})},
    "JSON in JSON in JSON": {"error": {"metadata": {"raw": json.dumps(
        {"error": {"message": json.dumps({"error": {"message": WINDOW}})}})}}},
    "JSON as a JSON string": json.dumps(json.dumps({"error": {"message": WINDOW}})),
    "a dict of Python": {"error": {"message": str({"error": {"message": WINDOW}})}},
    "bytes of Python": {"error": {"message": str(json.dumps({"message": WINDOW}).encode())}},
    "an event of a stream": b"data: " + json.dumps({"error": {"message": WINDOW}}).encode(),
    "plain text": WINDOW.encode(),
    "with a byte order mark": b"\xef\xbb\xbf" + json.dumps({"error": {"message": WINDOW}}).encode(),
    "UTF-16": json.dumps({"error": {"message": WINDOW}}).encode("utf-16"),
    "two documents": (json.dumps({"error": {"message": WINDOW}}) * 2).encode(),
    "line breaks": {"error": {"message": WINDOW.replace(" ", "\n ")}},
    "other quotes": {"error": {"message": WINDOW.replace("'", "\u2019")}},
    "capitals": {"error": {"message": WINDOW.upper()}},
    "behind 50 kB": {"error": {"message": "x" * 50_000 + WINDOW}},
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("adapter", ["openai-chat", "anthropic", "google"])
def test_an_error_is_read_in_every_shape(
    shape: str, adapter: str, wire: Answers, providers: dict[str, Provider]
) -> None:
    """The same words, wherever a server or a gateway puts them."""
    wire.row = {"status": 400, "body": SHAPES[shape]}

    with pytest.raises(errors.ContextWindowExceeded):
        providers[adapter].complete(request())
