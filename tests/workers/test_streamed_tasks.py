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
ADAPTERS = {"clarifier": "claude", "planner": "gpt", "drafter": "local", "critic": "gemini"}

READ = """
import json, sys
from tasks import complete, stream
result = complete.apply_async(({role!r}, "hi"), {{"stream": True}}, task_id={task_id!r})
print(json.dumps({{"id": result.id}}), flush=True)
try:
    for event in stream(result, timeout=50):
        print(json.dumps({{
            "type": event.type, "text": event.text, "error": event.error,
            "provider": event.provider, "result": event.result,
        }}), flush=True)
except Exception as error:
    print(json.dumps({{"type": "error", "error": type(error).__name__, "text": str(error)}}))
"""


@pytest.fixture
def readers() -> Iterator[ThreadPoolExecutor]:
    """Readers in processes of their own, waited for in threads."""
    with ThreadPoolExecutor(4) as pool:
        yield pool


def read(workers: Fleet, role: str, task_id: str = "t1") -> list[dict[str, Any]]:
    """Enqueue in another process and read the stream there; return what it heard."""
    printed = workers.run(READ.format(role=role, task_id=task_id))
    return [json.loads(line) for line in printed.splitlines()][1:]


def text_of(events: list[dict[str, Any]]) -> str:
    text = ""
    for event in events:
        text = "" if event["type"] == "restart" else text + (event["text"] or "")
    return text


def slowly(simulator: Simulator, *names: str, interval_s: float = 0.05) -> None:
    for name in names:
        simulator.settings(name, answer=LONG, interval_s=interval_s)


@pytest.fixture
def all_roles(workers: Fleet) -> Fleet:
    """A role for each adapter alone, and one with a second target behind each."""
    text = workers.roles_file.read_text()
    alone = {"drafter": "local", "critic": "gemini"}
    text += "".join(f"  {role}: {{chain: [{name}]}}\n" for role, name in alone.items())
    for name in ADAPTERS.values():
        second = "gpt" if name != "gpt" else "claude"
        text += f"  two-{name}: {{chain: [{name}, {second}]}}\n"
    text += "  strict: {chain: [claude, gpt], stream_restart: false}\n"
    workers.roles_file.write_text(text)
    return workers


@pytest.mark.four_adapters
def test_each_provider_is_heard_word_by_word(all_roles: Fleet, simulator: Simulator) -> None:
    """In another process, while the answer runs; the text that was heard is the result's."""
    slowly(simulator, *ADAPTERS.values(), interval_s=0.03)
    all_roles.start()

    for role in ADAPTERS:
        events = read(all_roles, role, task_id=role)

        assert len(events) > 10, role
        assert {event["type"] for event in events[:-1]} == {"text"}
        assert text_of(events) == LONG == events[-1]["result"]["text"]
        assert events[-1]["result"]["usage"]["output_tokens"] > 0
    assert all(hit["stream"] for hit in simulator.hits())


@pytest.mark.four_adapters
@pytest.mark.parametrize("fault", ["cut", "truncate", "reset_midway", "stream_error"])
def test_a_stream_that_breaks_is_never_taken_for_whole(
    all_roles: Fleet, simulator: Simulator, fault: str
) -> None:
    """However it breaks: what was heard is taken back, the next target's answer is whole."""
    slowly(simulator, *ADAPTERS.values(), interval_s=0)
    all_roles.start()

    for name in ADAPTERS.values():
        simulator.fault(name, fault, first=1)
        events = read(all_roles, f"two-{name}", task_id=f"{fault}-{name}")
        simulator.heal(name)

        assert events[-1]["type"] == "end", (name, events)
        result = events[-1]["result"]
        assert [attempt["outcome"] for attempt in result["attempts"]] == ["failed", "succeeded"]
        assert result["attempts"][0]["provider"] == name
        assert text_of(events) == result["text"] == LONG


def test_a_killed_workers_stream_begins_anew_elsewhere(
    workers: Fleet, simulator: Simulator, readers: ThreadPoolExecutor, redis_url: str
) -> None:
    """Who reads hears `restart` and then the whole, from the worker that took over."""
    slowly(simulator, "claude", interval_s=0.1)
    workers.start(2, concurrency=1)
    reading = readers.submit(read, workers, "clarifier")
    killed = kill_who_streams(workers, redis_url)
    simulator.settings("claude", answer=LONG)

    events = reading.result(60)

    assert [event["type"] for event in events].count("restart") == 1
    restart = next(event for event in events if event["type"] == "restart")
    assert (restart["provider"], restart["error"]) == (None, "WorkerLost")
    assert events[-1]["type"] == "end"
    assert text_of(events) == LONG
    assert events[-1]["result"]["duplicates"] == 1
    assert workers.workers[killed].returncode == -signal.SIGKILL


def test_a_role_may_have_the_stream_of_a_killed_worker_fail(
    all_roles: Fleet, simulator: Simulator, readers: ThreadPoolExecutor, redis_url: str
) -> None:
    """Where nobody can take back what was shown: the error comes, and no second call is paid."""
    slowly(simulator, "claude", interval_s=0.1)
    all_roles.start(2, concurrency=1)
    reading = readers.submit(read, all_roles, "strict")
    kill_who_streams(all_roles, redis_url)

    events = reading.result(60)

    assert (events[-1]["type"], events[-1]["error"]) == ("error", "WorkerLost")
    assert len(simulator.hits()) == 1


def test_a_worker_that_stops_hands_its_stream_over(
    workers: Fleet, simulator: Simulator, readers: ThreadPoolExecutor, redis_url: str
) -> None:
    """A call that outlives the stop is given back; the reader is told, and hears the whole."""
    slowly(simulator, "claude", interval_s=1)
    workers.start(2, concurrency=1)
    reading = readers.submit(read, workers, "clarifier")
    number = who_streams(workers, redis_url)
    simulator.settings("claude", answer=LONG)
    for _ in range(2):
        workers.workers[number].send_signal(signal.SIGTERM)

    events = reading.result(60)

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
