"""The chat model over a real worker: what it asks, what it tells, and how it stops waiting."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from celery import states
from langchain_core.caches import InMemoryCache
from langchain_core.messages import AIMessage

from breakwater.asking.listener import listener
from breakwater.asking.pending import PendingCompletion
from breakwater.errors import (
    BreakwaterError,
    Cancelled,
    DeadlineExceeded,
    InvalidOption,
    InvalidRequest,
    UnknownRole,
)
from breakwater.langchain import ChatBreakwater
from simulator.client import Simulator
from tasks import app
from tests.langchain.conftest import House
from tests.support.fleet import wait_for

pytestmark = pytest.mark.usefixtures("simulator")

Ask = Callable[..., Any]


def _stream(model: ChatBreakwater, prompt: str, /, **how: Any) -> AIMessage:
    chunks = list(model.stream(prompt, **how))
    return sum(chunks[1:], chunks[0])


async def _astream(model: ChatBreakwater, prompt: str, /, **how: Any) -> AIMessage:
    chunks = [chunk async for chunk in model.astream(prompt, **how)]
    return sum(chunks[1:], chunks[0])


WAYS: dict[str, Ask] = {
    "invoke": lambda model, prompt, /, **how: model.invoke(prompt, **how),
    "ainvoke": lambda model, prompt, /, **how: asyncio.run(model.ainvoke(prompt, **how)),
    "stream": _stream,
    "astream": lambda model, prompt, /, **how: asyncio.run(_astream(model, prompt, **how)),
}


@pytest.fixture(params=WAYS)
def ask(request: pytest.FixtureRequest) -> Ask:
    """Each way to ask, to its end."""
    return WAYS[request.param]


def test_an_answer_tells_who_gave_it_and_what_it_cost(ask: Ask) -> None:
    """Everything of the result that a LangChain program may want is in its metadata."""
    answer = ask(ChatBreakwater(role="coder"), "hi")

    assert answer.text.startswith("[local] answer to")
    told = answer.response_metadata
    assert told["provider"] == "local"
    assert told["model_name"] == "m-local"
    assert told["finish_reason"] == "stop"
    assert told["role"] == "coder"
    assert told["cost_usd"] is None  # no price of a server of one's own is known
    assert [attempt["outcome"] for attempt in told["attempts"]] == ["succeeded"]
    assert app.AsyncResult(told["task_id"]).get(timeout=180)["text"] == answer.text
    usage = answer.usage_metadata
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0


def test_another_provider_answers_for_one_that_is_down(ask: Ask, simulator: Simulator) -> None:
    """Nothing of it is seen but in the attempts."""
    simulator.fault("local", status=503)

    answer = ask(ChatBreakwater(role="coder"), "hi")

    assert answer.text.startswith("[gpt] answer to")
    outcomes = [(a["provider"], a["outcome"]) for a in answer.response_metadata["attempts"]]
    assert outcomes == [("local", "failed"), ("gpt", "succeeded")]


def test_an_error_is_ours_with_its_attempts(ask: Ask, simulator: Simulator) -> None:
    """Not Celery's, not LangChain's: `except InvalidRequest` works as it does behind `.get()`."""
    for label in ("local", "gpt"):
        simulator.fault(label, "invalid")

    with pytest.raises(InvalidRequest) as failed:
        ask(ChatBreakwater(role="coder"), "hi")

    assert failed.value.status == 400
    assert failed.value.attempts[0]["provider"] == "local"


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ({"model": "gpt-6"}, InvalidOption, "unknown option 'model'; the role determines it"),
        ({"deadline": 5}, InvalidOption, "did you mean 'deadline_s'"),
        ({"temperature": 7}, InvalidOption, "temperature"),
        ({"stop": ["a", "b", "c", "d", "e"]}, InvalidOption, "1 to 4"),
    ],
)
def test_an_option_that_does_not_fit_is_refused_here(
    how: dict[str, Any], error: type[BreakwaterError], says: str, ask: Ask, simulator: Simulator
) -> None:
    """Before anything is enqueued."""
    with pytest.raises(error, match=says):
        ask(ChatBreakwater(role="coder"), "hi", **how)

    assert simulator.hits() == []


def test_a_misspelt_role_is_told_at_once(ask: Ask) -> None:
    """As `delay()` does."""
    with pytest.raises(UnknownRole, match="did you mean 'coder'"):
        ask(ChatBreakwater(role="codr"), "hi")


def test_a_misspelt_field_is_told_at_once() -> None:
    """LangChain's models ignore what they do not know."""
    with pytest.raises(ValueError, match="timout_s"):
        ChatBreakwater(role="coder", timout_s=5)


def test_what_a_call_says_is_nearer_than_what_the_model_was_made_with() -> None:
    """Key by key; LangChain's standard names are ours, and count as much as `params`."""
    model = ChatBreakwater(
        role="coder", temperature=0.5, max_tokens=10, params={"top_p": 0.5, "seed": 1}
    )

    asked = model._pending([], ["stop"], {"temperature": 0, "params": {"seed": 2}})

    assert asked._options["params"] == {
        "temperature": 0, "max_output_tokens": 10, "top_p": 0.5, "seed": 2, "stop": ["stop"],
    }  # fmt: skip


async def test_who_waits_in_an_event_loop_holds_no_thread(simulator: Simulator) -> None:
    """200 calls wait at once; there are threads for enqueueing, and one that hears."""
    simulator.settings("local", latency="held")
    model = ChatBreakwater(role="local")

    asked = [asyncio.create_task(model.ainvoke(f"hi {n}")) for n in range(200)]
    await _until(lambda: len(listener._waiting) == 200)
    heard = sum(thread.name == "listener" for thread in threading.enumerate())
    busy = threading.active_count()
    simulator.release("local")
    answers = await asyncio.gather(*asked)

    assert heard == 1
    assert busy < 50
    assert len({answer.text for answer in answers}) == 200
    wait_for(lambda: not any(t.name == "listener" for t in threading.enumerate()))


async def _until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(180):
        while not condition():
            await asyncio.sleep(0.02)


async def _in_flight(simulator: Simulator, ask: Any) -> "asyncio.Task[Any]":
    simulator.settings("local", latency="held")
    asked = asyncio.create_task(ask)
    await _until(lambda: simulator.in_flight("local"))
    return asked


@pytest.mark.parametrize("way", ["ainvoke", "astream"])
async def test_a_coroutine_that_is_cancelled_ends_its_call(way: str, simulator: Simulator) -> None:
    """Nobody would read the answer: the provider's connection is closed, and nobody else asked."""
    model = ChatBreakwater(role="coder")
    ask = model.ainvoke("hi") if way == "ainvoke" else _astream(model, "hi")
    asked = await _in_flight(simulator, ask)

    asked.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asked
    await _until(lambda: not simulator.in_flight("local"))
    assert simulator.hits("local")[0]["client_gone"]
    assert simulator.hits("gpt") == []


def test_a_task_that_nobody_waits_for_any_more_is_cancelled(ask: Ask, simulator: Simulator) -> None:
    """When `timeout_s` is over: the caller gets our error, the task ends, the call is closed."""
    simulator.settings("local", latency="held")

    with pytest.raises(
        DeadlineExceeded, match=r"within the timeout of 1\.0 s; the task was cancelled"
    ) as late:
        ask(ChatBreakwater(role="coder", timeout_s=1.0), "hi")

    assert app.AsyncResult(late.value.details["task_id"]).state == states.REVOKED
    wait_for(lambda: not simulator.in_flight("local"))


def test_an_answer_that_was_there_first_is_given_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The time is over, but the answer came before the cancellation: it is paid for."""

    def too_late(question: PendingCompletion) -> bool:
        wait_for(lambda: app.backend.get_task_meta(question._result.id, cache=False)["result"])
        return True

    monkeypatch.setattr(PendingCompletion, "_cancel", too_late)

    assert ChatBreakwater(role="coder", timeout_s=0).invoke("hi").text.startswith("[local]")


async def test_a_task_that_an_operator_cancels_is_told_as_such(simulator: Simulator) -> None:
    """Not as Celery's TaskRevokedError."""
    asked = await _in_flight(simulator, ChatBreakwater(role="coder").ainvoke("hi"))
    (result,) = listener._waiting.values()

    await asyncio.to_thread(app.control.revoke, result.id)

    with pytest.raises(Cancelled, match="the task was cancelled"):
        await asked


async def test_an_answer_is_heard_after_the_connection_was_lost(
    house: House, simulator: Simulator
) -> None:
    """What Redis publishes while nobody is connected is found by looking."""
    simulator.settings("local", latency="held")
    asked = asyncio.create_task(ChatBreakwater(role="coder").ainvoke("hi"))
    await _until(lambda: simulator.in_flight("local"))

    house.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    simulator.release("local")

    async with asyncio.timeout(180):
        assert (await asked).text.startswith("[local]")


def test_a_stream_comes_in_pieces(simulator: Simulator) -> None:
    """Before the answer is whole, the last with what is known at its end."""
    simulator.settings("local", answer="one two three four five six", interval_s=0.5)

    chunks = list(ChatBreakwater(role="coder").stream("hi"))

    assert len([chunk for chunk in chunks if chunk.text]) > 1
    assert "".join(chunk.text for chunk in chunks) == "one two three four five six"
    assert chunks[-1].chunk_position == "last"
    assert [bool(chunk.usage_metadata) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


async def test_a_stream_that_is_left_ends_its_call(simulator: Simulator) -> None:
    """`break` out of the loop: what is still to come is not paid for."""
    simulator.settings("local", answer="word " * 200, interval_s=0.2)
    stream = ChatBreakwater(role="coder").astream("hi")

    async for _ in stream:
        break
    await stream.aclose()

    await _until(lambda: not simulator.in_flight("local"))
    assert simulator.hits("local")[0]["client_gone"]


def test_langchains_cache_tells_roles_and_parameters_apart() -> None:
    """It knows a model by what changes its answers."""
    cache = InMemoryCache()
    local = ChatBreakwater(role="local", cache=cache)

    first = local.invoke("hi")

    assert local.invoke("hi").response_metadata["task_id"] == first.response_metadata["task_id"]
    other = ChatBreakwater(role="gpt", cache=cache).invoke("hi")
    assert other.response_metadata["provider"] == "gpt"
    warmer = ChatBreakwater(role="local", cache=cache, temperature=1).invoke("hi")
    assert warmer.response_metadata["task_id"] != first.response_metadata["task_id"]


def test_who_waits_in_the_child_of_a_fork_is_heard(house: House) -> None:
    """The parent's listening thread is not in the child."""
    printed = house.workers.run("""
import asyncio, os
from breakwater.langchain import ChatBreakwater
model = ChatBreakwater(role="coder", timeout_s=180)
print(asyncio.run(model.ainvoke("parent")).text, flush=True)
if (pid := os.fork()) == 0:
    print(asyncio.run(model.ainvoke("child")).text, flush=True)
    os._exit(0)
os.waitpid(pid, 0)
""")

    assert printed.count("[local] answer to") == 2


def test_without_redis_a_call_fails_within_seconds(house: House) -> None:
    """As `delay()` does: QueueUnavailable, with the id under which it may be asked again."""
    printed = house.workers.run("""
import asyncio, os
os.environ["REDIS_URL"] = "redis://127.0.0.1:1/0"
from breakwater.langchain import ChatBreakwater
from breakwater.celery_app import QueueUnavailable
model = ChatBreakwater(role="coder")
for ask in (lambda: model.invoke("hi"), lambda: asyncio.run(model.ainvoke("hi")),
            lambda: list(model.stream("hi"))):
    try:
        ask()
    except QueueUnavailable as error:
        print(len(error.details["task_id"]))
""")

    assert printed.split() == ["36"] * 3


def test_the_extra_is_asked_for_by_name() -> None:
    """Without langchain-core: what to type. And `tasks` alone imports none of it."""
    code = """
import sys
import tasks
print([name for name in sys.modules if "langchain" in name])
sys.modules["langchain_core"] = None
try:
    from breakwater.langchain import ChatBreakwater
except ImportError as error:
    print(error)
"""
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()

    assert printed[0] == "[]"
    assert "pip install 'breakwater-llm[langchain]'" in printed[1]
