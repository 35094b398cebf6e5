"""A provider that fails in the middle of a stream, whose chunks LangChain cannot take back."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from breakwater.asking.events import Event
from breakwater.errors import BreakwaterError
from breakwater.langchain import AnswerRestarted, ChatBreakwater
from breakwater.langchain.chunks import ChunkRelay
from simulator.client import Simulator
from tests.support.fleet import wait_for

pytestmark = pytest.mark.usefixtures("simulator")

WORDS = "one two three four five six seven eight nine ten"


def _stream(model: ChatBreakwater, got: list[Any]) -> None:
    for chunk in model.stream("hi"):  # one by one: it may break off
        got.append(chunk)


def _astream(model: ChatBreakwater, got: list[Any]) -> None:
    async def read() -> None:
        async for chunk in model.astream("hi"):
            got.append(chunk)

    asyncio.run(read())


@pytest.fixture(params=[_stream, _astream], ids=["stream", "astream"])
def read(request: pytest.FixtureRequest) -> Callable[[ChatBreakwater, list[Any]], None]:
    """Both ways to read a stream."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def breaking(simulator: Simulator) -> Simulator:
    """`local` says half of its answer, and ends with an error; `gpt` is well."""
    for label in ("local", "gpt"):
        simulator.settings(label, answer=f"{label}: {WORDS}", interval_s=0.05)
    simulator.fault("local", "stream_error")
    return simulator


def test_a_restart_after_the_first_chunk_is_an_error_that_says_so(
    breaking: Simulator, read: Any
) -> None:
    """Chunks are added up by who reads: two answers in one would look like an answer."""
    got: list[Any] = []

    with pytest.raises(
        AnswerRestarted, match=r"'local' failed .* after part of its answer"
    ) as raised:
        read(ChatBreakwater(role="coder"), got)

    assert got
    assert raised.value.details["provider"] == "local"
    assert isinstance(raised.value, BreakwaterError)
    assert not any(chunk.chunk_position == "last" for chunk in got)
    wait_for(lambda: not breaking.in_flight("gpt"))  # the task was cancelled


def test_who_buffers_gets_the_answer_of_the_one_who_finished(
    breaking: Simulator, read: Any
) -> None:
    """Nothing is handed on before the answer is whole; then all of it, in its pieces."""
    got: list[Any] = []

    read(ChatBreakwater(role="coder", on_restart="buffer"), got)

    assert "".join(chunk.text for chunk in got) == f"gpt: {WORDS}"
    assert len(got) > 2
    outcomes = [(a["provider"], a["outcome"]) for a in got[-1].response_metadata["attempts"]]
    assert outcomes == [("local", "failed"), ("gpt", "succeeded")]


def test_who_does_not_stream_never_hears_of_it(breaking: Simulator) -> None:
    """`invoke` waits for the result, whoever gives it."""
    assert ChatBreakwater(role="coder").invoke("hi").text == f"gpt: {WORDS}"


def test_a_restart_before_the_first_chunk_is_none() -> None:
    """Nothing was handed on that could be void."""
    handed = ChunkRelay(buffers=False)

    assert list(handed.chunks(Event("restart", "1-0", provider="p", error="Overloaded"))) == []
    assert [c.text for c in handed.chunks(Event("text", "2-0", text="a"))] == ["a"]
