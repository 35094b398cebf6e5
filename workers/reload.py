"""
The roles file while a worker runs: looked at every two seconds, or at once by `breakwater reload`.

What it holds counts, not its date: editors put a new file in its place, Kubernetes turns a symbolic
link. A file that is still being written differs from one look to the next, and is left alone until
it does not. One that is bad is refused with all its faults, once, and the worker goes on with what
it has. Queues of roles that are new are consumed, those of roles that are gone no more.
"""

import os
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
from celery.worker.consumer import Consumer

from breakwater.celery_app import app
from breakwater.config.document import read_bytes
from breakwater.errors import ConfigError
from breakwater.messaging.names import queue_of
from tasks.answering import runtime
from tasks.answering.settings_loader import check_roles_file
from tasks.config.shared_page import version_of
from tasks.providers.registry import preload

LOOK_EVERY_S = 2.0
NO_FILE = "environment"

_log = structlog.get_logger("breakwater")


class Reloader:
    """
    Keep one worker at what its roles file says.

    Args:
        consumer: Celery's.
        only: Queues the worker was told to consume (`-Q`); empty for all.
        never: Those it was told not to (`-X`).
    """

    def __init__(
        self, consumer: Consumer, only: Collection[str] = (), never: Collection[str] = ()
    ) -> None:
        self._consumer = consumer
        self._only, self._never = only, never
        self._path = Path(runtime.runtime().settings.source)
        self._lock = threading.Lock()
        self._seen: bytes | None = None  # what the last look found; None: no file
        self._refused = ""  # the version that was refused last

    def start(self) -> None:
        """Start looking, if there is a file to look at."""
        if runtime.runtime().settings.version != NO_FILE:
            threading.Thread(target=self._run, name="reloader", daemon=True).start()

    def reload(self) -> dict[str, Any]:
        """
        Read the file now.

        Returns:
            `before` and `after`, the versions, and `faults`, for which it was refused.
        """
        faults: list[str] = []
        with self._lock:
            before = runtime.runtime().settings.version
            if before != NO_FILE:
                try:
                    self._take(read_bytes(self._path))
                except ConfigError as error:
                    faults = error.details["faults"]
            after = runtime.runtime().settings.version
        return {"before": before, "after": after, "faults": faults}

    def _run(self) -> None:
        while not runtime.runtime().keeper.closing:
            try:
                with self._lock:
                    self._look()
            except Exception:  # noqa: BLE001 - whatever it is, the next look may do better
                _log.exception("roles.fault")
            time.sleep(LOOK_EVERY_S)

    def _look(self) -> None:
        if any(self._wrong()):  # such as after an outage of Redis in the middle of a change
            self._consumer.call_soon(self._consume)
        try:
            content = read_bytes(self._path)
        except ConfigError as error:
            if self._seen is None:  # nor was it there before: an editor puts it back sooner
                self._refuse("missing", error)
            self._seen = None
            return
        still, self._seen = content == self._seen, content
        if still and version_of(content) != self._refused:
            with suppress(ConfigError):
                self._take(content)

    def _take(self, content: bytes) -> None:
        version, before = version_of(content), runtime.runtime().settings
        if version == before.version:
            self._refused = ""
            return
        try:
            settings = check_roles_file(content, self._path, os.environ)
            preload(settings)  # before the first prompt waits for an SDK
            runtime.change_settings(settings, content)
        except ConfigError as error:
            self._refuse(version, error)
            raise
        except Exception as error:
            fault = f"{self._path}: cannot be used: {type(error).__name__}"
            refused = ConfigError(fault, {"faults": [fault]})
            self._refuse(version, refused)
            raise refused from error
        self._refused = ""
        _log.info("roles.reloaded", before=before.version, after=version, roles=len(settings.roles))
        self._consumer.call_soon(self._consume)

    def _refuse(self, version: str, error: ConfigError) -> None:
        if version != self._refused:
            self._refused = version
            _log.warning("roles.refused", version=version, faults=error.details["faults"])

    def _consume(self) -> None:
        """Begin and cease to consume; called by the consumer, whose connection it is."""
        if self._consumer.task_consumer is None:
            return  # reconnecting
        begin, cease = self._wrong()
        for queue in begin:
            self._consumer.add_task_queue(queue)
        for queue in cease:
            self._consumer.cancel_task_queue(queue)
        runtime.runtime().keeper.publish_now()

    def _wrong(self) -> tuple[set[str], set[str]]:
        """Name the queues that ought to be consumed and are not, and the other way round."""
        settings, consumed = runtime.runtime().settings, set(app.amqp.queues.consume_from)
        ours = {queue_of(role) for role in settings.roles} - set(self._never)
        wanted = ours & set(self._only) if self._only else ours
        return wanted - consumed, consumed & {queue_of(role) for role in settings.removed}
