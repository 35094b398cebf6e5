"""
The thread of a worker that moves rows from Redis to the database.

A row is deleted from the stream only after the database has committed it. If a worker dies in
between, the next one moves the row again, and the database counts it once. One worker drains at a
time: the leader, which holds the key `ledger:drainer`.
"""

import threading
from collections.abc import Callable
from importlib.resources import files
from typing import TYPE_CHECKING

import redis
import structlog
from redis.exceptions import RedisError

from breakwater.errors import ConfigError
from breakwater.messaging.keys import LEDGER
from breakwater.redis.encryption import opened
from breakwater.redis.process_name import process_name
from breakwater.redis.text import to_text
from tasks.ledger import row_spool
from tasks.ledger.redis_queue import send

if TYPE_CHECKING:
    from tasks.ledger.database import Database

DRAINER = "ledger:drainer"
LEADERSHIP_MS = 10_000
BUSY_INTERVAL_S = 1.0
IDLE_INTERVAL_S = 4.0
FOLLOWER_INTERVAL_S = 5.0
FAULT_INTERVAL_S = 11.0
"""Longer than a leadership: another worker, perhaps on another host, may reach the database."""
BATCH_SIZE = 500

_log = structlog.get_logger("breakwater")


class Drainer:
    """
    Moves rows to the database while this process is the leader.

    Args:
        client: Of Redis.
        database: Opens the database.
    """

    def __init__(self, client: redis.Redis, database: Callable[[], "Database"]) -> None:
        self._client = client
        self._open = database
        self._database: Database | None = None
        self._script = client.register_script((files("tasks.ledger") / "drain.lua").read_text())
        self._me = process_name()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_away = False

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def stop(self, within_s: float = 5.0) -> None:
        """Drain once more and end; another worker moves the rows that do not make it in time."""
        self._stop.set()
        if self._thread:
            self._thread.join(within_s)

    def drain(self) -> int | None:
        """
        Move all rows that are in the stream.

        Returns:
            The number of rows moved; None if another process is the leader.

        Raises:
            RedisError: Redis is away.
            SQLAlchemyError: The database is away; the rows stay in Redis.
            ConfigError: LEDGER_URL cannot be used, or no key here decrypts the rows.
        """
        stored_ids: list[str] = []
        number = 0
        while True:
            args: list[str | int] = [self._me, LEADERSHIP_MS, BATCH_SIZE, *stored_ids]
            batch = self._script(keys=[LEDGER, DRAINER], args=args)
            if batch is None:
                return None
            if not batch:
                return number
            if self._database is None:
                self._database = self._open()
            self._database.add([opened(to_text(row)) for row in batch[1::2]])
            stored_ids = [to_text(id_) for id_ in batch[::2]]
            number += len(stored_ids)

    def _run(self) -> None:
        while True:
            stopping = self._stop.is_set()
            wait_s = self._try_to_drain()
            if stopping:
                break
            self._stop.wait(wait_s)
        if self._database:
            self._database.close()

    def _try_to_drain(self) -> float:
        """Drain, if this process is the leader; return the seconds to wait until the next try."""
        try:
            self._send_spooled()
            drained = self.drain()
        except Exception as fault:  # noqa: BLE001 - drivers raise many types; the thread must live
            self._report_away(fault)
            if isinstance(fault, RedisError):
                return FOLLOWER_INTERVAL_S
            return FAULT_INTERVAL_S
        if drained is None:
            return FOLLOWER_INTERVAL_S
        if self._is_away:
            self._is_away = False
            _log.info("ledger.back", rows=drained)
        if drained:
            return BUSY_INTERVAL_S
        return IDLE_INTERVAL_S

    def _report_away(self, fault: Exception) -> None:
        """Log the fault, unless the last try failed too."""
        if not self._is_away:
            why = type(fault).__name__
            if isinstance(fault, ConfigError):
                why = str(fault)
            _log.warning("ledger.away", error=why, next="rows wait in Redis")
        self._is_away = True

    def _send_spooled(self) -> None:
        for path in row_spool.files():
            try:
                rows = list(row_spool.rows_in(path))
            except FileNotFoundError:  # another worker of this host was faster
                continue
            send(self._client, rows)
            path.unlink(missing_ok=True)
