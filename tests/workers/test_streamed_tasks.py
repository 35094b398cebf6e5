"""Streams through real workers: heard while they run, whole at the end, whatever dies."""

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from simulator.client import Simulator
from tests.support.fleet import Fleet, wait_for

LONG = " ".join(f"word{n}" for n in range(60))
PROVIDERS = ("claude", "gpt", "local", "gemini")


READ = """
import asyncio, json
from tasks import complete, stream

async def read(role, task_id):
    result = complete.apply_async((role, "hi"), {{"stream": True}}, task_id=task_id)
    heard = []
    try:
        async for event in stream(result, timeout=50):
            heard.append({{
                "type": event.type, "text": event.text, "error": event.error,
                "provider": event.provider, "result": event.result,
            }})
    except Exception as error:
        heard.append({{"type": "error", "error": type(error).__name__, "text": str(error)}})
    return heard

async def main():
    print(json.dumps(await asyncio.gather(*(read(*each) for each in {tasks!r}))))

asyncio.run(main())
"""


@pytest.fixture
def readers() -> Iterator[ThreadPoolExecutor]:
    """Readers in processes of their own, waited for in threads."""
    with ThreadPoolExecutor(4) as pool:
        yield pool


def read_all(workers: Fleet, tasks: list[tuple[str, str]]) -> list[list[dict[str, Any]]]:
    """Enqueue in another process and read the streams there; return what each has heard."""
    heard: list[list[dict[str, Any]]] = json.loads(workers.run(READ.format(tasks=tasks)))
    return heard


def read(workers: Fleet, role: str) -> list[dict[str, Any]]:
    (heard,) = read_all(workers, [(role, "t1")])
    return heard


def text_of(events: list[dict[str, Any]]) -> str:
    text = ""
    for event in events:
        text = "" if event["type"] == "restart" else text + (event["text"] or "")
    return text


def slowly(simulator: Simulator, *names: str, interval_s: float = 0.05) -> None:
    for name in names:
        simulator.settings(name, answer=LONG, interval_s=interval_s)


@pytest.fixture
def all_roles(workers: Fleet, simulator: Simulator) -> Fleet:
    """A role for each provider, a spare behind it; and one that does not begin anew."""
    text = workers.roles_file.read_text()
    spare = f"spare: {{adapter: openai-chat, model: m, api_key: none, base_url: {simulator.url('spare')}/v1}}"
    text = text.replace("providers:\n", f"providers:\n  {spare}\n")
    text += "".join(f"  of-{name}: {{chain: [{name}, spare]}}\n" for name in PROVIDERS)
    text += "  strict: {chain: [claude, spare], stream_restart: false}\n"
    workers.roles_file.write_text(text)
    return workers


@pytest.mark.four_adapters
def test_each_provider_is_heard_word_by_word(all_roles: Fleet, simulator: Simulator) -> None:
    """In another process, while the answer runs; the text that was heard is the result's."""
    slowly(simulator, *PROVIDERS, interval_s=0.1)
    all_roles.start()

    heard = read_all(all_roles, [(f"of-{name}", name) for name in PROVIDERS])

    for name, events in zip(PROVIDERS, heard, strict=True):
        assert len(events) > 10, name
        assert {event["type"] for event in events[:-1]} == {"text"}
        assert text_of(events) == LONG == events[-1]["result"]["text"]
        assert events[-1]["result"]["usage"]["output_tokens"] > 0
    assert all(hit["stream"] for hit in simulator.hits())


@pytest.mark.slow
@pytest.mark.four_adapters
def test_a_stream_that_breaks_is_never_taken_for_whole(
    all_roles: Fleet, simulator: Simulator
) -> None:
    """However it breaks: what was heard is taken back, the next target's answer is whole."""
    slowly(simulator, *PROVIDERS, "spare", interval_s=0)
    all_roles.start()

    for fault in ("cut", "truncate", "reset_midway", "stream_error"):
        for name in PROVIDERS:
            simulator.fault(name, fault, first=1)
        heard = read_all(all_roles, [(f"of-{name}", f"{fault}-{name}") for name in PROVIDERS])

        for name, events in zip(PROVIDERS, heard, strict=True):
            assert events[-1]["type"] == "end", (name, fault, events)
            result = events[-1]["result"]
            tried = [(each["provider"], each["outcome"]) for each in result["attempts"]]
            assert tried == [(name, "failed"), ("spare", "succeeded")]
            assert text_of(events) == result["text"] == LONG


@pytest.mark.parametrize("pool", ["prefork", "gevent", "solo"])
def test_every_pool_tells(workers: Fleet, simulator: Simulator, pool: str) -> None:
    """The thread that tells is at home in each process, and beside each kind of task."""
    slowly(simulator, "claude", interval_s=0.1)
    workers.start(1, pool, 2)

    events = read(workers, "clarifier")

    assert len(events) > 10
    assert text_of(events) == LONG


@pytest.mark.slow
def test_a_killed_workers_stream_begins_anew_elsewhere(
    workers: Fleet, simulator: Simulator, readers: ThreadPoolExecutor, redis_url: str
) -> None:
    """Who reads hears `restart` and then the whole, from the worker that took over."""
    slowly(simulator, "claude", interval_s=1)
    workers.start(2, concurrency=1)
    reading = readers.submit(read, workers, "clarifier")
    killed = kill_who_streams(workers, redis_url)
    simulator.settings("claude", interval_s=0)

    events = reading.result(180)

    assert [event["type"] for event in events].count("restart") == 1
    restart = next(event for event in events if event["type"] == "restart")
    assert (restart["provider"], restart["error"]) == (None, "WorkerLost")
    assert events[-1]["type"] == "end"
    assert text_of(events) == LONG
    assert events[-1]["result"]["duplicates"] == 1
    assert workers.workers[killed].returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_role_may_have_the_stream_of_a_killed_worker_fail(
    all_roles: Fleet, simulator: Simulator, readers: ThreadPoolExecutor, redis_url: str
) -> None:
    """Where nobody can take back what was shown: the error comes, and no second call is paid."""
    slowly(simulator, "claude", interval_s=1)
    all_roles.start(2, concurrency=1)
    reading = readers.submit(read, all_roles, "strict")
    kill_who_streams(all_roles, redis_url)

    events = reading.result(180)

    assert (events[-1]["type"], events[-1]["error"]) == ("error", "WorkerLost")
    assert len(simulator.hits()) == 1


@pytest.mark.slow
def test_a_worker_that_stops_hands_its_stream_over(
    workers: Fleet, simulator: Simulator, readers: ThreadPoolExecutor, redis_url: str
) -> None:
    """A call that outlives the stop is given back; the reader is told, and hears the whole."""
    slowly(simulator, "claude", interval_s=0.5)
    workers.start(2, "threads", 1, "--grace", "0.5")
    reading = readers.submit(read, workers, "clarifier")
    number = who_streams(workers, redis_url)
    simulator.settings("claude", interval_s=0)
    workers.workers[number].send_signal(signal.SIGTERM)

    events = reading.result(180)

    assert events[-1]["type"] == "end"
    assert text_of(events) == LONG


def kill_who_streams(workers: Fleet, redis_url: str) -> int:
    number = who_streams(workers, redis_url)
    os.killpg(workers.workers[number].pid, signal.SIGKILL)
    workers.workers[number].wait()
    return number


def who_streams(workers: Fleet, redis_url: str) -> int:
    """Wait until something was told, and find the worker whose call it is."""
    import redis

    client: Any = redis.Redis.from_url(redis_url)
    wait_for(lambda: client.xlen("stream:t1") >= 2)
    tag = client.hget("task:t1", "tag").decode()
    about = json.loads(client.hget("workers", tag.partition(".")[0]))
    return int(about["name"][1 : about["name"].index("@")])
