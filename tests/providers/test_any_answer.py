"""
Whatever comes as an answer: never a crash, never a whole answer lost, never a cut one for whole.

Few examples each, and many in `make test-all`.
"""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import pairwise
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from breakwater.content import Delta, TextDelta
from breakwater.errors import ProviderError, TruncatedAnswer, UnfinishedAnswer
from tasks.config.settings import Settings
from tasks.ledger.prices import PriceList
from tasks.providers.base import Completion, Provider
from tests.providers.test_stream_shapes import SHAPES, TOOLS, body_of
from tests.support.vendors import answer_of, request, settings_for
from tests.support.wires import Wire

ADAPTERS = ("anthropic", "google", "openai", "openai-chat")
EXAMPLES = [40, pytest.param(400, marks=pytest.mark.slow)]
Wires = dict[str, tuple[Any, Wire]]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
WORDS = {
    "anthropic": ("stop_reason",), "google": ("candidates", 0, "finishReason"),
    "openai-chat": ("choices", 0, "finish_reason"),
}  # fmt: skip
"""Where the finish reason is; that of Responses is a status."""
ENVELOPE = {
    "anthropic": (("id",), ("type",), ("role",), ("model",), ("stop_sequence",), ("usage",)),
    "google": (
        ("usageMetadata",), ("modelVersion",), ("responseId",), ("candidates", 0, "index"),
        ("candidates", 0, "content", "role"), ("createTime",), ("promptFeedback",),
    ),
    "openai": (
        ("id",), ("object",), ("created_at",), ("model",), ("usage",), ("parallel_tool_calls",),
        ("tool_choice",), ("tools",), ("output", 0, "id"), ("output", 0, "role"),
        ("output", 0, "content", 0, "annotations"), ("incomplete_details",),
    ),
    "openai-chat": (
        ("id",), ("created",), ("model",), ("usage",), ("system_fingerprint",),
        ("choices", 0, "index"), ("choices", 0, "logprobs"), ("choices", 0, "message", "role"),
        ("choices", 0, "message", "annotations"), ("choices", 0, "native_finish_reason"),
    ),
}  # fmt: skip
"""What stands around an answer; nothing of it decides whether it is one."""
USAGE = {"google": "usageMetadata"}
PRICED = {"input_tokens": 1, "output_tokens": 2}
PRICES = PriceList(
    Settings({"p": settings_for("openai-chat", "", name="p", prices={"*": PRICED})}, {})
)


def run(examples: int, test: Callable[..., None], *given_: Any, **more: Any) -> None:
    """Run a property so many times."""
    settings(
        max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow],
        database=None,
    )(given(*given_, **more)(test))()  # fmt: skip


def ask(wires: Wires, adapter: str, pieces: Any, heard: list[Delta] | None = None) -> Any:
    """Return what came of a body: a completion or an error; anything else is raised."""
    provider, wire = wires[adapter]
    wire.pieces = pieces
    wire.content_type = "application/json" if heard is None else "text/event-stream"
    asked = request(tools=TOOLS, on_delta=None if heard is None else heard.append)
    return came_of(provider, asked)


def came_of(provider: Provider, asked: Any) -> Completion | ProviderError:
    try:
        came = provider.complete(asked)
    except ProviderError as error:
        json.dumps([str(error), error.details])
        return error
    json.dumps([came.usage.as_dict(), came.model, came.request_id, came.response_id])
    return came


def put(answer: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """Return the answer with a value at a place, where the place is there."""
    changed = deepcopy(answer)
    inner: Any = changed
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return changed


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield every place of a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_json_is_an_answer_or_an_error(examples: int, adapter: str, wires: Wires) -> None:
    """Plain and as a stream."""

    def holds(value: Any) -> None:
        body = json.dumps(value).encode()
        assert isinstance(ask(wires, adapter, [body]), ProviderError)
        assert isinstance(ask(wires, adapter, [b"data: " + body + b"\n\n"], []), ProviderError)

    run(examples, holds, JSON)


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_value_at_any_place_of_an_answer_is_no_crash(
    examples: int, adapter: str, wires: Wires
) -> None:
    """An answer or an error of ours comes out, whatever stands where."""
    answer = answer_of(adapter)
    all_places = list(places(answer))

    def holds(place: tuple[Any, ...], value: Any) -> None:
        body = json.dumps(put(answer, place, value)).encode()
        ask(wires, adapter, [body])
        ask(wires, adapter, [body], [])

    run(examples, holds, st.sampled_from(all_places), JSON)


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("examples", EXAMPLES)
def test_an_answer_is_never_lost_for_its_envelope(
    examples: int, adapter: str, wires: Wires
) -> None:
    """Ids, models, counts and roles of any kind, or none; also where a stream was asked for."""
    answer = answer_of(adapter, "forty-two")

    def holds(path: tuple[Any, ...], value: Any, has_it: bool) -> None:
        changed = put(answer, path, value)
        if not has_it:
            inner: Any = changed
            for step in path[:-1]:
                inner = inner[step]
            del inner[path[-1]]
        body = json.dumps(changed).encode()
        for heard in (None, list[Delta]()):
            came = ask(wires, adapter, [body], heard)
            assert isinstance(came, Completion), came
            assert (came.text, came.finish_reason) == ("forty-two", "stop")
            assert isinstance(came.model, str)
            assert came.model

    run(examples, holds, st.sampled_from(ENVELOPE[adapter]), JSON, st.booleans())


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_usage_is_counts_or_null(examples: int, adapter: str, wires: Wires) -> None:
    """And a cost that is never negative, or null with an unknown count."""
    good = answer_of(adapter)
    name = USAGE.get(adapter, "usage")
    names = st.sampled_from([*good[name], "cached_tokens", "prompt_tokens_details", "cost"])
    counts = st.dictionaries(names | st.text(max_size=8), st.integers(0, 10**7) | JSON, max_size=6)

    def holds(usage: Any) -> None:
        came = ask(wires, adapter, [json.dumps(good | {name: usage}).encode()])
        assert isinstance(came, Completion), came
        known = came.usage.as_dict().values()
        assert all(count is None or (type(count) is int and count >= 0) for count in known)
        cost = PRICES.cost("p", (came.model,), came.usage, 1).usd
        assert cost is None or cost >= 0
        if None in {came.usage.input_tokens, came.usage.output_tokens}:
            assert cost is None

    run(examples, holds, counts | JSON)


@pytest.mark.parametrize("adapter", sorted(WORDS))
@pytest.mark.parametrize("examples", EXAMPLES)
def test_an_unknown_finish_reason_is_never_a_success(
    examples: int, adapter: str, wires: Wires
) -> None:
    """Of any type; a known one means what the table says."""
    table = wires[adapter][0].FINISH
    words = st.text(max_size=12) | st.sampled_from([*table, *map(str.upper, table)])

    def holds(reason: Any) -> None:
        body = json.dumps(put(answer_of(adapter), WORDS[adapter], reason)).encode()
        came = ask(wires, adapter, [body])
        word = reason.strip().lower() if isinstance(reason, str) else None
        meant = table.get(word) or table.get((word or "").partition(":")[0].rstrip())
        if reason in (None, "", "null"):
            assert isinstance(came, TruncatedAnswer)
        elif isinstance(meant, str):
            assert came.finish_reason == meant
        else:
            assert type(came) is (meant or UnfinishedAnswer)

    run(examples, holds, words | JSON)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_the_cuts_between_chunks_mean_nothing(examples: int, wires: Wires) -> None:
    """Any stream, cut anywhere into pieces, is the same answer or error."""

    def holds(shape: tuple[str, dict[str, Any]], data: st.DataObject) -> None:
        wire, body = shape[0], body_of(*shape)
        cuts = sorted(data.draw(st.sets(st.integers(0, len(body)), max_size=12)))
        edges = [0, *cuts, len(body)]
        pieces = [body[a:b] for a, b in pairwise(edges)]
        whole, cut = ask(wires, wire, [body], []), ask(wires, wire, pieces, [])
        assert type(whole) is type(cut)
        if isinstance(whole, Completion):
            assert (whole.text, whole.usage) == (cut.text, cut.usage)

    run(examples, holds, st.sampled_from(SHAPES), st.data())


@pytest.mark.parametrize("examples", EXAMPLES)
def test_a_stream_that_breaks_off_is_never_taken_for_whole(examples: int, wires: Wires) -> None:
    """Wherever the connection breaks: an error, or the very answer, because its end had come."""
    good = [shape for shape in SHAPES if "finish" in shape[1]]

    def holds(shape: tuple[str, dict[str, Any]], share: float) -> None:
        wire, body = shape[0], body_of(*shape)
        whole = ask(wires, wire, [body], [])
        heard: list[Delta] = []
        came = ask(wires, wire, Breaking(body[: int(len(body) * share)]), heard)
        if isinstance(came, Completion):
            calls = [dict(call.arguments) for call in came.tool_calls]
            assert came.text == whole.text
            assert calls == [dict(call.arguments) for call in whole.tool_calls]
        assert whole.text.startswith("".join(d.text for d in heard if isinstance(d, TextDelta)))

    run(examples, holds, st.sampled_from(good), st.floats(0, 1))


class Breaking:
    """A body whose connection breaks."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        yield self._body
        raise httpx2.ReadError("broken")


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("examples", EXAMPLES)
def test_events_in_any_order_are_an_answer_or_an_error(
    examples: int, adapter: str, wires: Wires
) -> None:
    """Those of all shapes of a wire, mixed, left out, repeated, and with odd values in them."""
    events = [
        event
        for wire, shape in SHAPES
        if wire == adapter
        for event in shape.get("events", ())
        if isinstance(event, dict)
    ]
    spots = [(event, list(places(event))) for event in events]

    def holds(said: list[Any], data: st.DataObject) -> None:
        lines = []
        for event, paths in said:
            told = event
            if data.draw(st.booleans()):
                told = put(event, data.draw(st.sampled_from(paths)), data.draw(JSON))
            lines.append(b"data: " + json.dumps(told).encode() + b"\n\n")
        heard: list[Delta] = []
        came = ask(wires, adapter, lines, heard)
        if isinstance(came, Completion):
            assert came.text or came.tool_calls

    run(examples, holds, st.lists(st.sampled_from(spots), max_size=8), st.data())


@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_bytes_are_an_error(examples: int, wires: Wires) -> None:
    """Of a stream or of a plain answer."""

    def holds(adapter: str, body: bytes) -> None:
        assert isinstance(ask(wires, adapter, [body]), ProviderError)
        assert isinstance(ask(wires, adapter, [body], []), ProviderError)

    run(examples, holds, st.sampled_from(ADAPTERS), st.binary(max_size=60))
