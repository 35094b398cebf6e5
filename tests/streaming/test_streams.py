"""What is written is what is read: once, in order, from anywhere, whatever Redis does meanwhile."""

import asyncio
import threading
from collections.abc import Iterable
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from celery.exceptions import TimeoutError as WaitedTooLong

from breaker import threads
from breakwater.asking.events import Event, stream_key
from breakwater.content import TextDelta, ToolCallDelta
from breakwater.errors import TruncatedAnswer
from tasks import stream
from tasks.streaming.writer import Writer
from tests.streaming.conftest import Told
from tests.support.fault_proxy import FaultProxy
from tests.support.fleet import wait_for


def text_of(events: Iterable[Event]) -> str:
    """The text that stands at the end: what a `restart` takes back is gone."""
    text = ""
    for event in events:
        text = "" if event.type == "restart" else text + event.text
    return text


def kinds(events: Iterable[Event]) -> list[str]:
    return [event.type for event in events]


def test_a_reader_sees_what_is_told_in_order_and_the_result_at_the_end(told: Told) -> None:
    """Text and the pieces of tool calls, then the whole."""
    writer = told.begin()
    writer.delta(TextDelta("Let me "))
    writer.delta(TextDelta("look."))
    writer.delta(ToolCallDelta(0, "c1", "look", '{"at'))
    writer.delta(ToolCallDelta(0, None, None, '": 1}'))
    writer.finish()
    told.settle("Let me look.", tool_calls=[{"id": "c1", "name": "look", "arguments": {"at": 1}}])

    events = list(stream("t"))

    assert text_of(events) == "Let me look."
    calls = [event for event in events if event.type == "tool_call"]
    assert (calls[0].call_id, calls[0].name) == ("c1", "look")
    assert "".join(call.arguments for call in calls) == '{"at": 1}'
    assert events[-1].result is not None
    assert events[-1].result["text"] == "Let me look."
    assert told.entries()[-1] == ("end", None)  # for readers that know nothing of results


def test_a_host_without_threads_tells_later(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call goes on; the piece that finds a thread brings those before it along."""
    writer = told.begin()
    with monkeypatch.context() as full:
        full.setattr(threads, "start", lambda *_: None)
        writer.delta(TextDelta("Let me "))
    writer.delta(TextDelta("look."))
    writer.finish()
    told.settle("Let me look.")

    assert text_of(stream("t")) == "Let me look."


def test_a_reader_waits_for_what_is_not_told_yet(told: Told) -> None:
    """It is there before the task has begun, and hears each delta."""
    heard: list[Event] = []
    reader = threading.Thread(target=lambda: heard.extend(stream("t", timeout=180)))
    reader.start()
    writer = told.begin()
    writer.delta(TextDelta("a"))
    wait_for(lambda: text_of(heard) == "a")
    writer.delta(TextDelta("b"))
    writer.finish()
    told.settle("ab")
    reader.join(180)

    assert text_of(heard) == "ab"
    assert kinds(heard) == ["text", "text", "end"]


def test_asyncio_reads_the_same(told: Told) -> None:
    """Many readers in one loop, none of them a thread."""
    writer = told.begin()
    writer.delta(TextDelta("hello"))

    async def read() -> list[Event]:
        return [event async for event in stream("t", timeout=180)]

    async def all_of_them() -> list[list[Event]]:
        readers = [asyncio.create_task(read()) for _ in range(20)]
        await asyncio.sleep(0.05)
        await asyncio.to_thread(writer.finish)
        await asyncio.to_thread(told.settle, "hello")
        return await asyncio.gather(*readers)

    before = threading.active_count()
    read_by = asyncio.run(all_of_them())

    assert {(text_of(events), events[-1].type) for events in read_by} == {("hello", "end")}
    assert threading.active_count() <= before + 1  # the executor's, of this test


def test_a_reader_goes_on_where_it_stopped(told: Told) -> None:
    """With the id of the last event it has; what came before is not told again."""
    writer = told.begin()
    writer.delta(TextDelta("one "))
    writer.finish()
    first = next(iter(stream("t")))
    again = Writer(told.sender, "t", told.fence, int(told.redis.hget("task:t", "told")))
    again.delta(TextDelta("two"))
    again.finish()
    told.settle("one two")

    rest = list(stream("t", after=first.id))

    assert text_of(rest) == "two"
    assert kinds(rest) == ["text", "end"]


def test_what_broke_off_is_void_and_is_said_to_be(told: Told) -> None:
    """And is not kept: a late reader sees the answer that stands."""
    writer = told.begin()
    writer.delta(TextDelta("half an ans"))
    wait_for(told.entries)
    writer.restart("claude", "TruncatedAnswer")
    writer.delta(TextDelta("whole"))
    writer.finish()
    told.settle("whole")

    events = list(stream("t"))

    assert kinds(events) == ["restart", "text", "end"]
    assert (events[0].provider, events[0].error) == ("claude", "TruncatedAnswer")
    assert text_of(events) == "whole"


def test_deltas_that_come_together_are_one_entry(told: Told) -> None:
    """A thousand pieces of text are not a thousand entries, nor a thousand round trips."""
    writer = told.begin()
    for _ in range(1000):
        writer.delta(TextDelta("x"))
    writer.finish()

    assert "".join(data["text"] for _, data in told.entries()) == "x" * 1000
    assert len(told.entries()) < 50


def test_an_older_delivery_is_not_heard(told: Told) -> None:
    """A worker that slept through its lease says nothing into the other's answer."""
    slept = told.begin()
    slept.delta(TextDelta("old"))
    slept.finish()
    older = told.fence
    told.lose()
    writer = told.begin()
    assert told.task["telling"] == "1"
    writer.restart("", "WorkerLost")
    writer.delta(TextDelta("new"))
    writer.finish()

    woken = Writer(told.sender, "t", older, 100)
    woken.delta(TextDelta("older"))
    woken.finish()

    assert [kind for kind, _ in told.entries()] == ["restart", "text"]
    told.settle("new")
    assert text_of(stream("t")) == "new"


def test_a_batch_whose_reply_was_lost_is_told_once(told: Told, redis_url: str) -> None:
    """Redis took it and the answer was lost: it is sent again, and not taken again."""
    writer = told.begin()
    writer.delta(TextDelta("once"))
    writer.finish()
    number = int(told.redis.hget("task:t", "told"))
    script = told.store.script("stream")
    keys = ["task:t", stream_key("t"), "celery-task-meta-t"]
    again = [told.fence, number, 1000, "text", '{"text":"once"}']

    assert script(keys=keys, args=again) == 1

    assert told.entries() == [("text", {"text": "once"})]


def test_what_redis_did_not_take_is_told_when_it_is_back(redis_url: str) -> None:
    """Deltas gather while it is away; none is lost, none comes twice."""
    with FaultProxy(urlsplit(redis_url).port or 0) as proxy:
        told = Told(redis_url, through=proxy.url)
        writer = told.begin()
        writer.delta(TextDelta("a"))
        wait_for(told.entries)
        proxy.refuse()
        for _ in range(10):
            writer.delta(TextDelta("b"))
        proxy.heal()
        wait_for(lambda: "".join(d["text"] for _, d in told.entries()) == "a" + "b" * 10)


def test_what_was_never_told_is_said_with_the_result(told: Told) -> None:
    """A task that was not streamed, or answered from a cache, says all of it at once."""
    told.begin()
    told.settle("all", tool_calls=[{"id": "c", "name": "f", "arguments": {}}])

    events = list(stream("t"))

    assert kinds(events) == ["text", "tool_call", "end"]
    assert text_of(events) == "all"


def test_a_stream_that_lost_its_end_is_made_whole(told: Told) -> None:
    """The text that stands at the end is always that of the result."""
    writer = told.begin()
    writer.delta(TextDelta("so f"))
    writer.finish()
    told.settle("so far so good")

    events = list(stream("t"))

    assert text_of(events) == "so far so good"
    assert kinds(events) == ["text", "restart", "text", "end"]


def test_a_task_that_fails_raises_its_error_behind_what_was_told(told: Told) -> None:
    """As `.get()` does; never an end that looks like success."""
    writer = told.begin()
    writer.delta(TextDelta("half"))
    writer.finish()
    told.fail(TruncatedAnswer("claude: the answer is cut off"))
    heard: list[Event] = []

    with pytest.raises(TruncatedAnswer, match="cut off"):
        heard.extend(stream("t"))


def test_a_reader_gives_up_in_time(told: Told) -> None:
    """The task goes on without it."""
    told.begin()

    with pytest.raises(WaitedTooLong):
        list(stream("t", timeout=0.05))

    assert not told.is_settled()


def test_a_stream_expires(told: Told) -> None:
    """An hour after its last word nothing of it is left."""
    writer = told.begin()
    writer.delta(TextDelta("x"))
    writer.finish()
    told.settle("x")

    assert 0 < told.redis.pttl(stream_key("t")) <= 3_600_000


def test_nothing_in_a_stream_can_be_read_without_the_key(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encrypted at rest, like prompts and results; and still read by who has the key."""
    from cryptography.fernet import Fernet

    monkeypatch.setenv("BREAKWATER_ENCRYPTION_KEYS", Fernet.generate_key().decode())
    writer = told.begin()
    writer.delta(TextDelta("CANARY"))
    writer.finish()
    told.settle("CANARY")

    assert text_of(stream("t")) == "CANARY"
    assert b"CANARY" not in repr(told.redis.xrange(stream_key("t"))).encode()


def test_an_answer_that_is_too_large_is_not_told_to_its_end(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider that never stops fills neither the worker nor Redis."""
    monkeypatch.setattr("tasks.streaming.writer.MAX_BYTES", 1000)
    writer = told.begin()
    for _ in range(100):
        writer.delta(TextDelta("x" * 100))
    writer.finish()

    assert sum(len(data["text"]) for _, data in told.entries()) <= 1100


async def test_a_reader_that_is_cancelled_ends_although_redis_py_forgets(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `asyncio.wait_for` does before Python 3.12 when the reply comes in the same moment."""
    waits = asyncio.Event()

    async def forgetful(*_: object, **__: object) -> dict[str, object]:
        waits.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(20)
        return {}

    monkeypatch.setattr("redis.asyncio.Redis.xread", forgetful)
    reader = asyncio.create_task(anext(aiter(stream("t", timeout=180))))
    await waits.wait()

    reader.cancel()

    with pytest.raises(asyncio.CancelledError):
        await reader
