"""
Reload the roles file while a worker runs: every two seconds, or at once by `breakwater reload`.

The content of the file counts, not its date: editors replace the file, and Kubernetes moves a
symbolic link. A file that is still being written differs between two checks, and is not read until
two checks find the same content. A bad file is refused once, with all its faults, and the worker
keeps the settings it has. The worker then consumes the queues of new roles, and no longer those of
removed roles.
"""

import os
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from celery.worker.consumer import Consumer

from breakwater.celery_app import app
from breakwater.config.document import read_bytes
from breakwater.errors import ConfigError
from breakwater.messaging.names import queue_of
from tasks.answering import runtime
from tasks.answering.settings_loader import check_roles_file
from tasks.config import Settings
from tasks.config.shared_page import version_of
from tasks.providers.registry import preload

if TYPE_CHECKING:
    from tasks.operations.operator import ReloadReply

CHECK_INTERVAL_S = 2.0
NO_FILE_VERSION = "environment"
"""The version of settings that come from the environment's keys, without a roles file."""

_log = structlog.get_logger("breakwater")


class Reloader:
    """
    Keep one worker's settings equal to its roles file.

    Args:
        consumer: Celery's.
        only: Queues that the worker may consume (`-Q`); empty for all.
        never: Queues that the worker must not consume (`-X`).
    """

    def __init__(
        self, consumer: Consumer, only: Collection[str] = (), never: Collection[str] = ()
    ) -> None:
        self._consumer = consumer
        self._only, self._never = only, never
        self._path = Path(runtime.runtime().settings.source)
        self._lock = threading.Lock()
        self._last_content: bytes | None = None  # of the last check; None: there was no file
        self._refused = ""  # the version that was refused last

    def start(self) -> None:
        """Start to check the file, if there is one."""
        if runtime.runtime().settings.version != NO_FILE_VERSION:
            threading.Thread(target=self._run, name="reloader", daemon=True).start()

    def reload(self) -> "ReloadReply":
        """
        Read the file now.

        Returns:
            `before` and `after`: the versions; `faults`: why the file was refused.
        """
        faults: list[str] = []
        with self._lock:
            before = runtime.runtime().settings.version
            if before != NO_FILE_VERSION:
                try:
                    self._apply(read_bytes(self._path))
                except ConfigError as error:
                    faults = error.details["faults"]
            after = runtime.runtime().settings.version
        return {"before": before, "after": after, "faults": faults}

    def _run(self) -> None:
        while not runtime.runtime().keeper.closing:
            try:
                with self._lock:
                    self.check_file()
            except Exception:  # noqa: BLE001 - the next check may succeed, whatever the error is
                _log.exception("roles.fault")
            time.sleep(CHECK_INTERVAL_S)

    def check_file(self) -> None:
        """Apply the file if it has changed, and its content is that of the last check."""
        if any(self._queue_changes()):  # such as after an outage of Redis during a change
            self._consumer.call_soon(self._update_queues)
        try:
            content = read_bytes(self._path)
        except ConfigError as error:
            if self._last_content is None:  # missing twice: an editor replaces a file sooner
                self._log_refusal("missing", error)
            self._last_content = None
            return
        is_stable = content == self._last_content
        self._last_content = content
        if is_stable and version_of(content) != self._refused:
            with suppress(ConfigError):
                self._apply(content)

    def _apply(self, content: bytes) -> None:
        version, before = version_of(content), runtime.runtime().settings
        if version == before.version:
            self._refused = ""
            return
        try:
            settings = self._use(content)
        except ConfigError as error:
            self._log_refusal(version, error)
            raise
        self._refused = ""
        _log.info("roles.reloaded", before=before.version, after=version, roles=len(settings.roles))
        self._consumer.call_soon(self._update_queues)

    def _use(self, content: bytes) -> Settings:
        """
        Check the content, and use it for the tasks that begin from now on.

        Raises:
            ConfigError: It cannot be used.
        """
        try:
            settings = check_roles_file(content, self._path, os.environ)
            preload(settings)  # so that no prompt waits for the import of an SDK
            runtime.change_settings(settings, content)
        except ConfigError:
            raise
        except Exception as error:
            fault = f"{self._path}: cannot be used: {type(error).__name__}"
            raise ConfigError(fault, {"faults": [fault]}) from error
        return settings

    def _log_refusal(self, version: str, error: ConfigError) -> None:
        if version != self._refused:
            self._refused = version
            _log.warning("roles.refused", version=version, faults=error.details["faults"])

    def _update_queues(self) -> None:
        """Start and stop consuming queues; the consumer calls this, since it owns the channel."""
        if self._consumer.task_consumer is None:
            return  # the consumer is reconnecting
        to_add, to_cancel = self._queue_changes()
        for queue in to_add:
            self._consumer.add_task_queue(queue)
        for queue in to_cancel:
            self._consumer.cancel_task_queue(queue)
        runtime.runtime().keeper.publish_now()

    def _queue_changes(self) -> tuple[set[str], set[str]]:
        """Return the queues to consume from now on, and the queues to stop consuming."""
        settings, consumed = runtime.runtime().settings, set(app.amqp.queues.consume_from)
        wanted = {queue_of(role) for role in settings.roles} - set(self._never)
        if self._only:
            wanted &= set(self._only)
        removed = {queue_of(role) for role in settings.removed}
        return wanted - consumed, consumed & removed
