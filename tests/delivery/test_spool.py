"""Paid answers that Redis did not take are settled before any worker of the host takes a message."""

import json
import os
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ConnectionError as Away
from redis.exceptions import ResponseError

from breakwater.messaging.settlement import Settlement
from tasks.delivery import result_spool
from tasks.delivery.delivery_store import LEASE_MS
from tasks.delivery.lease import Lease
from tasks.delivery.lease_keeper import DeliveryKeeper
from tests.delivery.conftest import QUEUE, Bench

RESULT = "celery-task-meta-"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The spool's folder, empty."""
    monkeypatch.setenv("SPOOL_DIR", str(tmp_path))
    return tmp_path


def settlement(fence: str = "1", meta: str = '"paid"', task_id: str = "t") -> Settlement:
    return Settlement(task_id, meta, 60, fence=fence)


def started(bench: Bench) -> DeliveryKeeper:
    """Start a worker's keeper, and stop its thread."""
    keeper = DeliveryKeeper(bench.store)
    keeper.start(lambda: ({}, ()), lambda _: None)
    keeper.stopped = True
    keeper._wake.set()
    return keeper


@pytest.mark.parametrize("lapsed", [False, True])
def test_what_is_in_the_spool_is_settled_before_anything_is_taken(
    bench: Bench, folder: Path, lapsed: bool
) -> None:
    """The message of the same task may be the next one in its queue."""
    bench.push("a")
    tag = bench.take_one()
    begun = bench.begin(tag)
    result_spool.keep(settlement(begun.fence))
    if lapsed:
        bench.pass_tended(LEASE_MS + 2000)

    keeper = started(bench)

    assert keeper.is_ready
    assert bench.redis.get(RESULT + "t") == b'"paid"'
    assert list(folder.iterdir()) == []
    if lapsed:
        assert bench.begin(bench.take_one()).verdict == "settled"


def test_a_worker_takes_nothing_until_redis_has_what_is_in_the_spool(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis is unavailable at its start; later the keeper's thread settles the answer."""
    result_spool.keep(settlement())
    settle, calls = bench.store.settle, []

    def away(*args: Any, **kwargs: Any) -> str:
        calls.append(args)
        if len(calls) == 1:
            raise Away("refused")
        return settle(*args, **kwargs)

    monkeypatch.setattr(bench.store, "settle", away)
    keeper = DeliveryKeeper(bench.store)
    keeper._replay()
    before = keeper.is_ready
    keeper._replay()

    assert (before, keeper.is_ready) == (False, True)
    assert bench.redis.exists(RESULT + "t")


@pytest.mark.parametrize("times", [1, 2, 8])
def test_workers_that_start_at_once_share_the_spool(bench: Bench, folder: Path, times: int) -> None:
    """Each answer is settled once, and no worker fails because of another."""
    for number in range(50):
        result_spool.keep(settlement(task_id=f"t{number}"))
    numbers: list[int] = []

    def replay() -> None:
        numbers.append(result_spool.replay(bench.store.settle))

    threads = [threading.Thread(target=replay) for _ in range(times)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert len(numbers) == times
    assert sum(bench.redis.exists(f"{RESULT}t{number}") for number in range(50)) == 50
    assert list(folder.iterdir()) == []


BAD = {
    "torn": b'{"task_id": "x", "meta": "\\"pa',
    "empty": b"",
    "no JSON": b"\x00\xff",
    "a list": b"[1]",
    "deep": b"[" * 100_000,
    "no meta": b'{"task_id": "x"}',
    "a strange field": b'{"task_id": "x", "meta": "m", "expires_s": 60, "color": "red"}',
    "no expiry": b'{"task_id": "x", "meta": "m"}',
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("suffix", [".json", ".part"])
def test_a_file_that_cannot_be_read_holds_up_none_behind_it(
    bench: Bench, folder: Path, name: str, suffix: str
) -> None:
    """It is renamed; a file that may still be written is left alone."""
    (folder / f"0{suffix}").write_bytes(BAD[name])
    fresh = folder / "1.part"
    fresh.write_bytes(b'{"task')
    old = time.time() - 2 * result_spool.MAX_WRITING_S
    os.utime(folder / f"0{suffix}", (old, old))
    result_spool.keep(settlement())

    assert started(bench).is_ready
    assert bench.redis.exists(RESULT + "t")
    assert sorted(path.name for path in folder.iterdir()) == ["0.bad", "1.part"]


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_what_is_no_file_of_ours_is_not_read(bench: Bench, folder: Path, kind: str) -> None:
    """A worker would wait for a pipe's writer, and a link may point to another user's file."""
    elsewhere = folder.parent / f"elsewhere-{folder.name}"
    elsewhere.write_text(json.dumps(asdict(settlement(task_id="x"))))
    path = folder / "0.json"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to(elsewhere)
        case _:
            path.mkdir()
    result_spool.keep(settlement())

    assert started(bench).is_ready
    assert bench.redis.exists(RESULT + "t")
    assert not bench.redis.exists(RESULT + "x")
    assert elsewhere.exists()


def test_a_whole_answer_whose_file_had_no_name_yet_counts(bench: Bench, folder: Path) -> None:
    """Its worker was killed before the rename."""
    (folder / "9-9.part").write_text(json.dumps(asdict(settlement(task_id="t"))))

    started(bench)

    assert bench.redis.exists(RESULT + "t")
    assert list(folder.iterdir()) == []


def test_a_settlement_that_redis_refuses_for_good_is_put_aside(folder: Path) -> None:
    """Redis would refuse it for ever, and no worker of this host would take anything."""
    result_spool.keep(settlement())

    def refuse(_: Any) -> None:
        raise ResponseError("WRONGTYPE")

    assert result_spool.replay(refuse) == 0
    assert [path.suffix for path in folder.iterdir()] == [".bad"]


@pytest.mark.parametrize("number", [28, 30, 122], ids=["full", "read only", "over quota"])
def test_a_disk_that_takes_nothing_costs_no_answer_while_its_worker_lives(
    bench: Bench, folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The answer stays in memory, no partial file stays on disk, and the log reports it."""

    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    bench.push("a")
    tag = bench.take_one()
    lease = Lease(bench.store, "t", tag, QUEUE, keep_rows=list)
    lease.ensure_begun()
    settle, calls = bench.store.settle, []

    def away_once(*args: Any, **kwargs: Any) -> str:
        calls.append(args)
        if len(calls) == 1:
            raise Away("refused")
        return settle(*args, **kwargs)

    monkeypatch.setattr(bench.store, "settle", away_once)

    assert lease.settle(Settlement("t", '"paid"', 60))
    assert bench.redis.get(RESULT + "t") == b'"paid"'
    assert list(folder.iterdir()) == []


def test_an_answer_is_written_down_first_where_redis_is_known_to_be_away(
    bench: Bench, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker may end while it waits for Redis."""
    bench.push("a")
    keeper = DeliveryKeeper(bench.store)
    lease = Lease(bench.store, "t", bench.take_one(), QUEUE, keeper, keep_rows=list)
    lease.ensure_begun()
    keeper._away = True
    settle, seen = bench.store.settle, []

    def look(*args: Any, **kwargs: Any) -> str:
        seen.extend(path.suffix for path in folder.iterdir())
        return settle(*args, **kwargs)

    monkeypatch.setattr(bench.store, "settle", look)

    assert lease.settle(Settlement("t", '"paid"', 60))
    assert seen == [".json"]
    assert list(folder.iterdir()) == []
