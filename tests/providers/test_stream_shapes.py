"""Streams as real servers send them: the shapes in `data/streams`, each cut in several ways."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from breakwater import errors
from breakwater.content import Delta, TextDelta, Tool, ToolCallDelta
from breakwater.errors import ProviderError
from tasks.providers.base import Completion, Provider
from tests.providers.conftest import Build
from tests.support.loopback import Loopback
from tests.support.vendors import request
from tests.support.wires import Wire, cut

DATA = Path(__file__).parent / "data/streams"
PAGE = Path(__file__).parents[2] / "docs/stream-shapes.md"
TOOLS = (Tool("weather"), Tool("time"))
NAMED = {"anthropic", "openai"}
"""Wires whose events carry their type as a name."""


def shapes() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every shape, with its wire."""
    for file in sorted(DATA.glob("*.yaml")):
        for shape in yaml.safe_load(file.read_text(encoding="utf-8")):
            yield file.stem, shape


SHAPES = list(shapes())


def body_of(wire: str, shape: dict[str, Any]) -> bytes:
    """Return the bytes of a stream."""
    if "raw" in shape:
        return str(shape["raw"]).encode()
    said = []
    for event in shape["events"]:
        if isinstance(event, str):
            said.append(event)
            continue
        name = f"event: {event['type']}\n" if shape.get("named", wire in NAMED) else ""
        said.append(f"{name}data: {json.dumps(event)}\n\n")
    if shape.get("done", wire == "openai-chat"):
        said.append("data: [DONE]\n\n")
    return "".join(said).encode()


@pytest.mark.parametrize(
    ("wire", "shape"), SHAPES, ids=[f"{wire}: {shape['shape']}" for wire, shape in SHAPES]
)
def test_a_stream_is_read_as_it_was_meant(
    wire: str, shape: dict[str, Any], wires: dict[str, tuple[Provider, Wire]]
) -> None:
    """However it is cut; and who listens hears what the answer says."""
    provider, carrier = wires[wire]
    for pieces in cut(body_of(wire, shape)):
        carrier.pieces = pieces
        heard: list[Delta] = []

        came = ask(provider, heard)

        if "error" in shape:
            assert type(came).__name__ == shape["error"], came
            assert shape.get("says", "") in str(came)
            continue
        check(came, shape)
        assert "".join(d.text for d in heard if isinstance(d, TextDelta)) == came.text
        assert calls_in(heard) == [(c.id, c.name, dict(c.arguments)) for c in came.tool_calls]


def ask(provider: Provider, heard: list[Delta]) -> Any:
    """Return what came: a completion or an error."""
    try:
        return provider.complete(request(on_delta=heard.append, tools=TOOLS))
    except ProviderError as error:
        return error


def check(came: Any, shape: dict[str, Any]) -> None:
    assert isinstance(came, Completion), came
    assert came.text == shape.get("text", "")
    called = [[call.name, dict(call.arguments)] for call in came.tool_calls]
    assert called == shape.get("calls", [])
    assert came.finish_reason == shape["finish"]
    assert came.model == shape.get("model", "m-1")
    counts = came.usage.as_dict()
    wanted = shape.get("usage", {})
    assert {name: counts[name] for name in wanted} == wanted


def calls_in(heard: list[Delta]) -> list[tuple[str | None, str | None, Any]]:
    """Put the calls together as a listener does: id and name come once, arguments in pieces."""
    calls: dict[int, list[ToolCallDelta]] = {}
    for delta in heard:
        if isinstance(delta, ToolCallDelta):
            calls.setdefault(delta.index, []).append(delta)
    assert sorted(calls) == list(range(len(calls)))
    for pieces in calls.values():
        assert all(not piece.name for piece in pieces[1:])
    return [
        (pieces[0].id, pieces[0].name, json.loads("".join(p.arguments for p in pieces) or "{}"))
        for _, pieces in sorted(calls.items())
    ]


@pytest.mark.parametrize("wire", ["anthropic", "google", "openai", "openai-chat"])
def test_a_shape_is_read_from_a_socket_too(wire: str, server: Loopback, build: Build) -> None:
    """The first of each wire, over the transport that the workers use."""
    shape = next(shape for of, shape in SHAPES if of == wire)
    server.answer(body_of(wire, shape), content_type="text/event-stream")

    check(build(wire, server.url).complete(request(on_delta=lambda _: None)), shape)


def test_every_shape_is_named_once_and_has_a_public_source() -> None:
    """Who meets a new one finds the old one by its words."""
    names = [(wire, shape["shape"]) for wire, shape in SHAPES]

    assert len(set(names)) == len(names) >= 60
    for _, shape in SHAPES:
        assert shape["source"].startswith("https://")
        assert ("error" in shape) != ("finish" in shape)
        assert hasattr(errors, shape.get("error", "ProviderError"))


def test_the_page_lists_the_shapes_that_there_are() -> None:
    """In the order of the files; the test says what the table has to be."""
    table = "\n".join(lines())

    assert table in PAGE.read_text(encoding="utf-8"), f"the tables have to be:\n{table}"


def lines() -> Iterator[str]:
    """Write the tables of the page."""
    for wire in dict.fromkeys(wire for wire, _ in SHAPES):
        yield f"## `{wire}`\n\n| server | shape | ours |\n|---|---|---|"
        for of, shape in SHAPES:
            if of == wire:
                ours = f"`{shape['error']}`" if "error" in shape else f"read, `{shape['finish']}`"
                yield f"| [{shape['server']}]({shape['source']}) | {shape['shape']} | {ours} |"
        yield ""
