"""
The thread of a worker that brings rows from Redis to the database.

Rows leave the stream when the database has them for good. Whoever dies in between leaves them to
the next, and the database counts none twice.
"""

import os
import socket
import threading
from collections.abc import Callable
from importlib.resources import files
from typing import TYPE_CHECKING

import redis
import structlog
from redis.exceptions import RedisError

from breakwater.errors import ConfigError
from breakwater.redis.encryption import opened
from tasks.ledger import spool
from tasks.ledger.redis_queue import LEDGER, send

if TYPE_CHECKING:
    from tasks.ledger.database import Database

DRAINER = "ledger:drainer"
LEADERSHIP_MS = 10_000
EVERY_S = 1.0
IDLE_EVERY_S = 4.0
OTHERS_EVERY_S = 5.0
AFTER_A_FAULT_S = 11.0
"""Longer than a turn: another worker, perhaps on another host, may reach the database."""
BATCH_SIZE = 500

_log = structlog.get_logger("breakwater")


class Drain:
    """
    Bring rows to the database, whenever it is this process' turn.

    Args:
        client: Of Redis.
        database: Opens it.
    """

    def __init__(self, client: redis.Redis, database: Callable[[], "Database"]) -> None:
        self._client = client
        self._open = database
        self._database: Database | None = None
        self._script = client.register_script((files("tasks.ledger") / "drain.lua").read_text())
        self._me = f"{socket.gethostname()}:{os.getpid()}"
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._away = False

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def stop(self, within_s: float = 5.0) -> None:
        """Bring what is there still, and end; what does not get there is another's to bring."""
        self._stop.set()
        if self._thread:
            self._thread.join(within_s)

    def drain(self) -> int | None:
        """
        Bring all there is.

        Returns:
            How many rows came; None if it is another process' turn.

        Raises:
            RedisError: Redis is away.
            SQLAlchemyError: The database is away; the rows stay where they are.
            ConfigError: LEDGER_URL cannot be used, or no key here opens the rows.
        """
        ids: list[str] = []
        number = 0
        while True:
            found = self._script(
                keys=[LEDGER, DRAINER], args=[self._me, LEADERSHIP_MS, BATCH_SIZE, *ids]
            )
            if not found:
                return None if found is None else number
            ids = [_text(id_) for id_ in found[::2]]
            if self._database is None:
                self._database = self._open()
            self._database.add([opened(_text(row)) for row in found[1::2]])
            number += len(ids)

    def _run(self) -> None:
        while True:
            stopping = self._stop.is_set()
            wait_s = self._turn()
            if stopping:
                break
            self._stop.wait(wait_s)
        if self._database:
            self._database.close()

    def _turn(self) -> float:
        try:
            self._hand_on_spool()
            drained = self.drain()
        except Exception as fault:  # noqa: BLE001 - a driver raises what it likes, and this goes on
            if not self._away:
                why = str(fault) if isinstance(fault, ConfigError) else type(fault).__name__
                _log.warning("ledger.away", error=why, next="rows wait in Redis")
            self._away = True
            return OTHERS_EVERY_S if isinstance(fault, RedisError) else AFTER_A_FAULT_S
        if self._away and drained is not None:
            self._away = False
            _log.info("ledger.back", rows=drained)
        if drained is None:
            return OTHERS_EVERY_S
        return EVERY_S if drained else IDLE_EVERY_S

    def _hand_on_spool(self) -> None:
        for path in spool.files():
            try:
                rows = list(spool.rows_in(path))
            except FileNotFoundError:  # another worker of this host was quicker
                continue
            send(self._client, rows)
            path.unlink(missing_ok=True)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
