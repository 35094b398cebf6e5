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
from tests.streaming.conftest import StreamedTask
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


def test_a_reader_gets_all_events_in_order_and_the_result_at_the_end(
    streamed: StreamedTask,
) -> None:
    """Text and the pieces of tool calls, then the whole result."""
    writer = streamed.begin()
    writer.delta(TextDelta("Let me "))
    writer.delta(TextDelta("look."))
    writer.delta(ToolCallDelta(0, "c1", "look", '{"at'))
    writer.delta(ToolCallDelta(0, None, None, '": 1}'))
    writer.finish()
    streamed.settle(
        "Let me look.", tool_calls=[{"id": "c1", "name": "look", "arguments": {"at": 1}}]
    )

    events = list(stream("t"))

    assert text_of(events) == "Let me look."
    calls = [event for event in events if event.type == "tool_call"]
    assert (calls[0].call_id, calls[0].name) == ("c1", "look")
    assert "".join(call.arguments for call in calls) == '{"at": 1}'
    assert events[-1].result is not None
    assert events[-1].result["text"] == "Let me look."
    assert streamed.entries()[-1] == ("end", None)  # for readers that know nothing of results


def test_a_host_without_threads_sends_later(
    streamed: StreamedTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call goes on; the first delta that gets a thread sends those before it too."""
    writer = streamed.begin()
    with monkeypatch.context() as full:
        full.setattr(threads, "start", lambda *_: None)
        writer.delta(TextDelta("Let me "))
    writer.delta(TextDelta("look."))
    writer.finish()
    streamed.settle("Let me look.")

    assert text_of(stream("t")) == "Let me look."


def test_a_reader_waits_for_events_that_are_not_sent_yet(streamed: StreamedTask) -> None:
    """It starts before the task does, and gets each delta."""
    heard: list[Event] = []
    reader = threading.Thread(target=lambda: heard.extend(stream("t", timeout=180)))
    reader.start()
    writer = streamed.begin()
    writer.delta(TextDelta("a"))
    wait_for(lambda: text_of(heard) == "a")
    writer.delta(TextDelta("b"))
    writer.finish()
    streamed.settle("ab")
    reader.join(180)

    assert text_of(heard) == "ab"
    assert kinds(heard) == ["text", "text", "end"]


def test_asyncio_reads_the_same(streamed: StreamedTask) -> None:
    """Many readers share one loop, and none needs a thread."""
    writer = streamed.begin()
    writer.delta(TextDelta("hello"))

    async def read() -> list[Event]:
        return [event async for event in stream("t", timeout=180)]

    async def all_of_them() -> list[list[Event]]:
        readers = [asyncio.create_task(read()) for _ in range(20)]
        await asyncio.sleep(0.05)
        await asyncio.to_thread(writer.finish)
        await asyncio.to_thread(streamed.settle, "hello")
        return await asyncio.gather(*readers)

    before = threading.active_count()
    read_by = asyncio.run(all_of_them())

    assert {(text_of(events), events[-1].type) for events in read_by} == {("hello", "end")}
    assert threading.active_count() <= before + 1  # the executor's, of this test


def test_a_reader_continues_where_it_stopped(streamed: StreamedTask) -> None:
    """After the id of its last event; earlier events are not sent again."""
    writer = streamed.begin()
    writer.delta(TextDelta("one "))
    writer.finish()
    first = next(iter(stream("t")))
    again = Writer(streamed.sender, "t", streamed.fence, int(streamed.redis.hget("task:t", "told")))
    again.delta(TextDelta("two"))
    again.finish()
    streamed.settle("one two")

    rest = list(stream("t", after=first.id))

    assert text_of(rest) == "two"
    assert kinds(rest) == ["text", "end"]


def test_an_answer_that_broke_off_is_retracted(streamed: StreamedTask) -> None:
    """Its deltas are deleted: a late reader gets the valid answer only."""
    writer = streamed.begin()
    writer.delta(TextDelta("half an ans"))
    wait_for(streamed.entries)
    writer.restart("claude", "TruncatedAnswer")
    writer.delta(TextDelta("whole"))
    writer.finish()
    streamed.settle("whole")

    events = list(stream("t"))

    assert kinds(events) == ["restart", "text", "end"]
    assert (events[0].provider, events[0].error) == ("claude", "TruncatedAnswer")
    assert text_of(events) == "whole"


def test_deltas_of_one_batch_are_one_entry(streamed: StreamedTask) -> None:
    """A thousand pieces of text are not a thousand entries, nor a thousand round trips."""
    writer = streamed.begin()
    for _ in range(1000):
        writer.delta(TextDelta("x"))
    writer.finish()

    assert "".join(data["text"] for _, data in streamed.entries()) == "x" * 1000
    assert len(streamed.entries()) < 50


def test_batches_of_an_older_delivery_are_rejected(streamed: StreamedTask) -> None:
    """A worker that slept through its lease adds nothing to the other's answer."""
    slept = streamed.begin()
    slept.delta(TextDelta("old"))
    slept.finish()
    older = streamed.fence
    streamed.lose()
    writer = streamed.begin()
    assert streamed.task["telling"] == "1"
    writer.restart("", "WorkerLost")
    writer.delta(TextDelta("new"))
    writer.finish()

    woken = Writer(streamed.sender, "t", older, 100)
    woken.delta(TextDelta("older"))
    woken.finish()

    assert [kind for kind, _ in streamed.entries()] == ["restart", "text"]
    streamed.settle("new")
    assert text_of(stream("t")) == "new"


def test_a_batch_whose_reply_was_lost_is_stored_once(
    streamed: StreamedTask, redis_url: str
) -> None:
    """Redis stored it and the reply was lost: it is sent again, and not stored again."""
    writer = streamed.begin()
    writer.delta(TextDelta("once"))
    writer.finish()
    number = int(streamed.redis.hget("task:t", "told"))
    script = streamed.store.script("stream")
    keys = ["task:t", stream_key("t"), "celery-task-meta-t"]
    again = [streamed.fence, number, 1000, "text", '{"text":"once"}']

    assert script(keys=keys, args=again) == 1

    assert streamed.entries() == [("text", {"text": "once"})]


def test_deltas_of_an_outage_are_sent_when_redis_is_back(redis_url: str) -> None:
    """They are buffered while Redis is away; none is lost, none is sent twice."""
    with FaultProxy(urlsplit(redis_url).port or 0) as proxy:
        streamed = StreamedTask(redis_url, through=proxy.url)
        writer = streamed.begin()
        writer.delta(TextDelta("a"))
        wait_for(streamed.entries)
        proxy.refuse()
        for _ in range(10):
            writer.delta(TextDelta("b"))
        proxy.heal()
        wait_for(lambda: "".join(d["text"] for _, d in streamed.entries()) == "a" + "b" * 10)


def test_text_that_was_never_streamed_comes_with_the_result(streamed: StreamedTask) -> None:
    """A task that was not streamed, or was answered from a cache, sends it as one event."""
    streamed.begin()
    streamed.settle("all", tool_calls=[{"id": "c", "name": "f", "arguments": {}}])

    events = list(stream("t"))

    assert kinds(events) == ["text", "tool_call", "end"]
    assert text_of(events) == "all"


def test_a_stream_that_lost_its_end_is_completed_from_the_result(streamed: StreamedTask) -> None:
    """The text at the end always equals that of the result."""
    writer = streamed.begin()
    writer.delta(TextDelta("so f"))
    writer.finish()
    streamed.settle("so far so good")

    events = list(stream("t"))

    assert text_of(events) == "so far so good"
    assert kinds(events) == ["text", "restart", "text", "end"]


def test_a_task_that_fails_raises_its_error_after_the_events(streamed: StreamedTask) -> None:
    """As `.get()` does; the end never looks like success."""
    writer = streamed.begin()
    writer.delta(TextDelta("half"))
    writer.finish()
    streamed.fail(TruncatedAnswer("claude: the answer is cut off"))
    heard: list[Event] = []

    with pytest.raises(TruncatedAnswer, match="cut off"):
        heard.extend(stream("t"))


def test_a_reader_gives_up_in_time(streamed: StreamedTask) -> None:
    """The task goes on without the reader."""
    streamed.begin()

    with pytest.raises(WaitedTooLong):
        list(stream("t", timeout=0.05))

    assert not streamed.is_settled()


def test_a_stream_expires(streamed: StreamedTask) -> None:
    """An hour after its last event nothing of it is left."""
    writer = streamed.begin()
    writer.delta(TextDelta("x"))
    writer.finish()
    streamed.settle("x")

    assert 0 < streamed.redis.pttl(stream_key("t")) <= 3_600_000


def test_nothing_in_a_stream_can_be_read_without_the_key(
    streamed: StreamedTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encrypted at rest, like prompts and results; and still read by who has the key."""
    from cryptography.fernet import Fernet

    monkeypatch.setenv("BREAKWATER_ENCRYPTION_KEYS", Fernet.generate_key().decode())
    writer = streamed.begin()
    writer.delta(TextDelta("CANARY"))
    writer.finish()
    streamed.settle("CANARY")

    assert text_of(stream("t")) == "CANARY"
    assert b"CANARY" not in repr(streamed.redis.xrange(stream_key("t"))).encode()


def test_an_answer_that_is_too_large_is_not_sent_to_its_end(
    streamed: StreamedTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider that never stops fills neither the worker nor Redis."""
    monkeypatch.setattr("tasks.streaming.writer.MAX_BYTES", 1000)
    writer = streamed.begin()
    for _ in range(100):
        writer.delta(TextDelta("x" * 100))
    writer.finish()

    assert sum(len(data["text"]) for _, data in streamed.entries()) <= 1100


async def test_a_reader_that_is_cancelled_ends_although_redis_py_forgets(
    streamed: StreamedTask, monkeypatch: pytest.MonkeyPatch
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
