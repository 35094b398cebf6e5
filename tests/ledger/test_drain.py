"""Every row reaches the database once, whichever process dies on the way."""

import threading
from collections.abc import Iterator
from pathlib import Path

import fakeredis
import pytest
import redis
from cryptography.fernet import Fernet
from redis.exceptions import ConnectionError as Away
from sqlalchemy.exc import OperationalError

from breakwater.errors import ConfigError
from breakwater.messaging.keys import LEDGER
from breakwater.redis.encryption import KEYS, seal
from tasks.ledger import redis_queue, row_spool
from tasks.ledger.attempt_filter import AttemptFilter
from tasks.ledger.database import Database
from tasks.ledger.drain import BATCH_SIZE, DRAINER, LEADERSHIP_MS, Drainer
from tasks.ledger.export import export
from tests.support.ledger_rows import abandoned, row
from tests.support.waiting import wait_until


@pytest.fixture(params=["fakeredis", "server"])
def client(request: pytest.FixtureRequest) -> redis.Redis:
    """An empty Redis."""
    if request.param == "fakeredis":
        return fakeredis.FakeRedis()
    return redis.Redis.from_url(request.getfixturevalue("redis_url"))


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of a SQLite file."""
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture(autouse=True)
def _own_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPOOL_DIR", str(tmp_path / "spool"))


@pytest.fixture
def drain(client: redis.Redis, url: str) -> Iterator[Drainer]:
    """The drainer of one worker."""
    one = Drainer(client, lambda: Database(url))
    yield one
    one.stop()


def outcomes(url: str) -> list[str]:
    with Database(url) as database:
        return [each["outcome"] for each in export(database, AttemptFilter())]


def test_rows_arrive_and_leave_redis(client: redis.Redis, drain: Drainer, url: str) -> None:
    """More rows than one batch has."""
    redis_queue.send(client, [row(f"t{i}") for i in range(BATCH_SIZE + 3)])

    drained = drain.drain()

    assert (drained, client.xlen(LEDGER)) == (BATCH_SIZE + 3, 0)
    assert outcomes(url) == ["succeeded"] * (BATCH_SIZE + 3)


def test_one_drains_at_a_time(client: redis.Redis, drain: Drainer, url: str) -> None:
    """Another process waits until the leadership expires; no row is lost meanwhile."""
    client.set(DRAINER, "another:1", px=200)
    redis_queue.send(client, [row()])

    assert drain.drain() is None
    assert client.xlen(LEDGER) == 1
    wait_until(lambda: drain.drain() == 1)


def test_rows_stay_in_redis_until_the_database_has_stored_them(
    client: redis.Redis, url: str
) -> None:
    """A database that is away stores none; the next run moves all of them."""
    redis_queue.send(client, [row("a"), row("b")])

    def away() -> Database:
        raise OperationalError("x", {}, Exception())

    with pytest.raises(OperationalError):
        Drainer(client, away).drain()

    assert client.xlen(LEDGER) == 2
    assert Drainer(client, lambda: Database(url)).drain() == 2


def test_a_death_between_database_and_redis_doubles_no_row(client: redis.Redis, url: str) -> None:
    """The next process moves the same rows again."""
    redis_queue.send(client, [row("a"), abandoned("b")])
    with Database(url) as database:
        database.add([row("a"), abandoned("b")])

    assert Drainer(client, lambda: Database(url)).drain() == 2
    assert sorted(outcomes(url)) == ["abandoned", "succeeded"]


def test_rows_that_redis_does_not_take_wait_on_disk(
    client: redis.Redis, drain: Drainer, url: str
) -> None:
    """The drainer of any worker of this host sends it to Redis later."""

    class Gone:
        def pipeline(self, **_: object) -> None:
            raise Away

    redis_queue.write(Gone(), [row("a"), row("b")])  # type: ignore[arg-type]
    assert len(row_spool.files()) == 1

    drain.start()

    wait_until(lambda: not row_spool.files() and client.xlen(LEDGER) == 0)
    wait_until(lambda: outcomes(url) == ["succeeded"] * 2)


def test_the_thread_moves_the_rest_when_it_stops(
    client: redis.Redis, drain: Drainer, url: str
) -> None:
    """No row waits for another worker, which may never start."""
    drain.start()
    wait_until(lambda: client.exists(DRAINER))
    redis_queue.send(client, [row()])

    drain.stop()

    assert outcomes(url) == ["succeeded"]
    assert "ledger" not in {thread.name for thread in threading.enumerate()}


def test_encrypted_rows_are_decrypted(
    client: redis.Redis, drain: Drainer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the key; without it the rows stay in Redis."""
    monkeypatch.setenv(KEYS, Fernet.generate_key().decode())
    redis_queue.send(client, [seal(row(metadata={"name": "CANARY"}))])
    assert b"CANARY" not in str(client.xrange(LEDGER)).encode()

    with monkeypatch.context() as without:
        without.delenv(KEYS)
        with pytest.raises(ConfigError, match="is encrypted"):
            drain.drain()
    assert client.xlen(LEDGER) == 1

    assert drain.drain() == 1
    assert outcomes(url) == ["succeeded"]


def test_a_leadership_lasts_no_longer_after_the_servers_clock_stepped_back(
    client: redis.Redis, drain: Drainer
) -> None:
    """Redis expires a key at a point in time, which is then further away."""
    redis_queue.send(client, [row("t")])
    client.set(DRAINER, "dead:1", px=3600_000)

    first = drain.drain()

    assert first is None
    assert 0 < client.pttl(DRAINER) <= LEADERSHIP_MS
