"""
Celery's consumer for messages that cannot run: they become dead letters, or stay in their queue.

Celery's own consumer logs such a message with its whole body and deletes it, and its caller waits
for ever. An unexpected exception ends the worker.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from traceback import extract_tb
from typing import Any, TypeAlias

import structlog
from celery.worker.consumer import Consumer as CeleryConsumer
from kombu.pidbox import Node
from redis.exceptions import RedisError

from breakwater.errors import BadTask, InvalidMessage, UnknownTask
from breakwater.messaging import times
from tasks.delivery import envelope, foreign_tasks
from tasks.delivery.faults import HOST_ERRORS, MAX_FAULTS, FailedMessages
from tasks.delivery.foreign_tasks import CELERY_PREFIX
from tasks.delivery.worker_transport import keeper

SERVED_CELERY_TASKS = {"celery.accumulate"}
"""Celery's own tasks that a worker runs; nothing settles the tasks that its others run."""

FAULTY_DELAY_MS = 5_000
"""How long a message waits that failed here, so that others show whether they run."""

_log = structlog.get_logger("breakwater")


Untyped: TypeAlias = Any
"""A value of Celery or kombu, which have no types."""


class Commands(Node):
    """
    Runs the control commands, and keeps its subscription whatever is published.

    After a command that fails, Celery unsubscribes and subscribes again: a command that is
    published in between, such as a `cancel`, is lost.
    """

    def handle_message(self, body: Untyped, message: Untyped = None) -> Untyped:
        """Run a control command; log and ignore an invalid one."""
        try:
            return super().handle_message(body, message)  # type: ignore[no-untyped-call]
        except (OSError, RedisError):
            raise
        except Exception as fault:  # noqa: BLE001 - kombu trusts what is published
            _log.warning("command.refused", error=type(fault).__name__)


class Consumer(CeleryConsumer):  # type: ignore[misc]
    """Celery's consumer, made so that no message can end it."""

    def __init__(
        self, on_task_request: Untyped, *args: Untyped, app: Untyped, **kwargs: Untyped
    ) -> None:
        app.control.mailbox.node_cls = Commands
        super().__init__(on_task_request, *args, app=app, **kwargs)
        self._failed_messages = FailedMessages()
        # The worker itself hands over a message that waited for a free child: wrap that, too.
        self._to_pool = self.controller._process_task
        self._waits_for_children: bool = on_task_request == self.controller._process_task_sem
        self.controller._process_task = self._process
        if not self._waits_for_children:
            self.on_task_request = self._process

    def connection_for_read(self, heartbeat: Untyped = None) -> Untyped:
        """Connect sooner after an outage than Celery does: it waits 2 s, 4 s, … up to 30 s."""
        connection = self.app.connection_for_read(heartbeat=heartbeat)
        connection.ensure_connection = partial(
            connection.ensure_connection, interval_start=0.2, interval_step=0.3, interval_max=2
        )
        return self.ensure_connected(connection)

    def create_task_handler(self, *args: Untyped, **kwargs: Untyped) -> Callable[[Untyped], None]:
        """Return the function that handles each message."""
        handle = super().create_task_handler(*args, **kwargs)

        def on_message(message: Untyped) -> None:
            if keeper().rest.is_on:
                message.channel.qos.refuse(message.delivery_tag)
                return
            try:
                if name := self._foreign_task(message):
                    foreign_tasks.leave_in_queue(keeper().store, message.delivery_tag, name)
                    message.ack()
                    return
                self._check(message)
                handle(message)
                self._failed_messages.passed()
            except BadTask as fault:
                self._dead_letter(message, fault)
            except (ConnectionError, TimeoutError, RedisError):  # Redis is unavailable
                raise
            except Exception as fault:
                if keeper().closing:  # the pool may be gone already; the message is requeued
                    raise
                self._cannot_run(message, fault)

        return on_message

    def _process(self, request: Untyped) -> None:
        """Hand a task to the pool; requeue its message if the pool cannot take it."""
        try:
            self._to_pool(request)
        except Exception as fault:  # noqa: BLE001 - whatever the pool raises, the prompt is not at fault
            if self._waits_for_children:
                self.controller._quick_release()
            self._requeue(request.message, fault)

    def _cannot_run(self, message: Untyped, fault: Exception) -> None:
        """Requeue a message; after several faults of it alone make it a dead letter."""
        task_id = envelope.task_id_of({"headers": message.headers})
        if isinstance(fault, HOST_ERRORS) or not task_id:
            return self._requeue(message, fault)
        is_again = self._failed_messages.has_failed(task_id)
        if self._failed_messages.failed(task_id) >= MAX_FAULTS:
            return self.on_invalid_task(None, message, fault)
        if not is_again:
            return self._requeue(message, fault)
        _log.warning("message.waits", task_id=task_id, error=type(fault).__name__)
        due_ms = times.Clock.of(message.properties).now_ms() + FAULTY_DELAY_MS
        keeper().store.schedule(message.delivery_tag, due_ms)
        message.ack()  # then the messages behind it show whether it is at fault
        return None

    def _requeue(self, message: Untyped, fault: Exception) -> None:
        keeper().rest.begin(fault)
        message.channel.qos.refuse(message.delivery_tag)

    def on_decode_error(self, message: Untyped, exc: Exception) -> None:
        """Make a message with an undecodable body a dead letter; ignore such a control command."""
        if isinstance(message.delivery_tag, str):
            self.on_invalid_task(None, message, exc)

    def on_unknown_message(self, _body: Untyped, message: Untyped) -> None:
        """Make a message without a task name a dead letter."""
        self._dead_letter(message, InvalidMessage("it names no task"))

    def on_unknown_task(self, _body: Untyped, message: Untyped, _exc: Exception) -> None:
        """Make a message with an unknown task a dead letter; others were left in their queues."""
        self._dead_letter(message, UnknownTask("its task is not known here"))

    def on_invalid_task(self, _body: Untyped, message: Untyped, exc: Exception) -> None:
        """Make a message that Celery rejects a dead letter; its error may quote the body."""
        where = [f" in {at.name}, line {at.lineno}" for at in extract_tb(exc.__traceback__)[-1:]]
        error = type(exc).__name__ + "".join(where)
        self._dead_letter(message, InvalidMessage(f"Celery cannot make a task of it: {error}"))

    def _foreign_task(self, message: Untyped) -> str:
        """Return the name of another program's task if only the body contains it; else empty."""
        name = message.headers.get("task")
        if name and not str(name).startswith(CELERY_PREFIX):
            return ""
        try:
            body = _body(message)
        except InvalidMessage:
            return ""
        if not name and isinstance(body, dict):
            name = body.get("task")
        if not isinstance(name, str) or envelope.deeper_than(envelope.MAX_DEPTH, body):
            return ""
        is_celerys = name.startswith(CELERY_PREFIX) and name not in SERVED_CELERY_TASKS
        if name not in self.strategies or (is_celerys and foreign_tasks.names_none_of_ours(body)):
            return name
        return ""

    def _check(self, message: Untyped) -> None:
        body, properties = _body(message), message.properties
        name = envelope.check_task(message.headers, body)
        if message.headers.get("task") is None:  # protocol 1 has its times in the body
            now_ms = times.Clock.of(properties).now_ms()
            properties[times.EXPIRES_AT] = times.restate(body, now_ms)
        if name.startswith(CELERY_PREFIX) and name not in SERVED_CELERY_TASKS:
            raise UnknownTask(
                f"task {name[:80]!r} is not served: it would run others of which none is settled "
                f"by itself; enqueue each, such as in a group"
            )

    def _dead_letter(self, message: Untyped, fault: BadTask) -> None:
        body = None
        with suppress(InvalidMessage):
            body = _body(message)
        task_id = envelope.task_id_of({"headers": message.headers}, body)
        envelope.dead_letter(keeper().store, message.delivery_tag, fault, task_id)
        message.ack()


def _body(message: Untyped) -> Untyped:
    if message.content_type not in (message.accept or ()):
        raise InvalidMessage("its content type is not taken; application/json is")
    try:
        return message.payload
    except Exception as error:  # noqa: BLE001 - decoders raise what they like
        raise InvalidMessage(f"its body cannot be decoded: {type(error).__name__}") from None
